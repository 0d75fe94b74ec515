//! twemproxy's command line, read as `getopt_long` reads it: flags in any order and joined, long names cut short.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the configuration is when it is not said: twemproxy's own place, then that of Debian's package.
const CONF_FILES: [&str; 2] = ["conf/nutcracker.yml", "/etc/nutcracker/nutcracker.yml"];

const LOG_LEVEL: u8 = 5;
const LOG_LEVEL_MAX: u8 = 11;
const STATS_PORT: u16 = 22_222;
const STATS_ADDR: &str = "0.0.0.0";
const STATS_INTERVAL_MS: u32 = 30_000;

/// twemproxy's size of a buffer. Ours find their size themselves.
pub(crate) const MBUF_SIZE: u32 = 16_384;
const MBUF_SIZE_MIN: u32 = 512;
const MBUF_SIZE_MAX: u32 = 16_777_216;

/// The flags: letter, long name, and what follows them.
const FLAGS: [(char, &str, Follows); 13] = [
    ('h', "help", Follows::Nothing),
    ('V', "version", Follows::Nothing),
    ('t', "test-conf", Follows::Nothing),
    ('d', "daemonize", Follows::Nothing),
    ('D', "describe-stats", Follows::Nothing),
    ('v', "verbose", Follows::Number),
    ('o', "output", Follows::File),
    ('c', "conf-file", Follows::File),
    ('s', "stats-port", Follows::Number),
    ('i', "stats-interval", Follows::Number),
    ('a', "stats-addr", Follows::Text),
    ('p', "pid-file", Follows::File),
    ('m', "mbuf-size", Follows::Number),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Follows {
    Nothing,
    Number,
    File,
    Text,
}

/// What the command line says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// `-V`, and with it `-h` and `-D`: say so and end.
    pub(crate) show_version: bool,
    /// `-h`.
    pub(crate) show_help: bool,
    /// `-D`.
    pub(crate) describe_stats: bool,
    /// `-t`: read the file, say what it is worth, and end.
    pub(crate) test_conf: bool,
    /// `-d`: in the background, with no terminal and no standard files.
    pub(crate) daemonize: bool,
    /// `-v`: 0, emergencies alone, to 11, all.
    pub(crate) log_level: u8,
    /// `-o`; none: standard error.
    pub(crate) output: Option<PathBuf>,
    /// `-c`.
    pub(crate) conf_file: Option<PathBuf>,
    /// `-s`.
    pub(crate) stats_port: u16,
    /// `-a`.
    pub(crate) stats_addr: String,
    /// `-i`: how old the numbers may be.
    pub(crate) stats_interval: Duration,
    /// `-p`; none: no file.
    pub(crate) pid_file: Option<PathBuf>,
    /// `-m`, to be warned of.
    pub(crate) mbuf_size: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            show_version: false,
            show_help: false,
            describe_stats: false,
            test_conf: false,
            daemonize: false,
            log_level: LOG_LEVEL,
            output: None,
            conf_file: None,
            stats_port: STATS_PORT,
            stats_addr: STATS_ADDR.to_owned(),
            stats_interval: Duration::from_millis(u64::from(STATS_INTERVAL_MS)),
            pid_file: None,
            mbuf_size: MBUF_SIZE,
        }
    }
}

impl Options {
    /// Reads the arguments behind the program's name. What is no flag is passed over, as there. The error is what to
    /// say before the usage.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut rest = arguments.iter();
        while let Some(word) = rest.next() {
            if word == "--" {
                break;
            }
            if let Some(long) = word.strip_prefix("--") {
                let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
                let (flag, follows) = long_flag(name).ok_or_else(|| format!("invalid option -- '{word}'"))?;
                let value = match (follows, value) {
                    (Follows::Nothing, Some(_)) => return Err(format!("invalid option -- '{flag}'")),
                    (Follows::Nothing, None) => "",
                    (_, Some(value)) => value,
                    (_, None) => rest.next().ok_or_else(|| missing(flag, follows))?,
                };
                options.take(flag, value)?;
            } else if let Some(short) = word.strip_prefix('-').filter(|short| !short.is_empty()) {
                for (at, flag) in short.char_indices() {
                    let Some((_, _, follows)) = FLAGS.iter().find(|(letter, ..)| *letter == flag) else {
                        return Err(format!("invalid option -- '{flag}'"));
                    };
                    if *follows == Follows::Nothing {
                        options.take(flag, "")?;
                        continue;
                    }
                    let joined = &short[at + flag.len_utf8()..];
                    let value =
                        if joined.is_empty() { rest.next().ok_or_else(|| missing(flag, *follows))? } else { joined };
                    options.take(flag, value)?;
                    break;
                }
            }
        }
        Ok(options)
    }

    /// The file to read: the one that was named, or the first of the usual ones that is there.
    pub(crate) fn conf_file(&self) -> PathBuf {
        let usual = || CONF_FILES.iter().map(Path::new).find(|path| path.exists()).unwrap_or(Path::new(CONF_FILES[0]));
        self.conf_file.clone().unwrap_or_else(|| usual().to_owned())
    }

    fn take(&mut self, flag: char, value: &str) -> Result<(), String> {
        let number = || number(value).ok_or_else(|| missing(flag, Follows::Number));
        match flag {
            'h' => (self.show_version, self.show_help) = (true, true),
            'V' => self.show_version = true,
            't' => self.test_conf = true,
            'd' => self.daemonize = true,
            'D' => (self.show_version, self.describe_stats) = (true, true),
            'v' => self.log_level = u8::try_from(number()?).unwrap_or(u8::MAX).min(LOG_LEVEL_MAX),
            'o' => self.output = Some(value.into()),
            'c' => self.conf_file = Some(value.into()),
            's' => {
                let port = number()?;
                self.stats_port = u16::try_from(port)
                    .ok()
                    .filter(|port| *port > 0)
                    .ok_or_else(|| format!("option -s value {port} is not a valid port"))?;
            }
            // Numbers that are always new would keep the processor busy for nobody.
            'i' => self.stats_interval = Duration::from_millis(u64::from(number()?.max(1))),
            'a' => value.clone_into(&mut self.stats_addr),
            'p' => self.pid_file = Some(value.into()),
            'm' => {
                self.mbuf_size =
                    number().ok().filter(|size| *size > 0).ok_or("option -m requires a non-zero number")?;
                if !(MBUF_SIZE_MIN..=MBUF_SIZE_MAX).contains(&self.mbuf_size) {
                    return Err(format!("mbuf chunk size must be between {MBUF_SIZE_MIN} and {MBUF_SIZE_MAX} bytes"));
                }
            }
            _ => return Err(format!("invalid option -- '{flag}'")),
        }
        Ok(())
    }
}

/// The flag of a long name, or of the only one that begins so.
fn long_flag(name: &str) -> Option<(char, Follows)> {
    if let Some((flag, _, follows)) = FLAGS.iter().find(|(_, long, _)| *long == name) {
        return Some((*flag, *follows));
    }
    let mut begin_so = FLAGS.iter().filter(|(_, long, _)| !name.is_empty() && long.starts_with(name));
    match (begin_so.next(), begin_so.next()) {
        (Some((flag, _, follows)), None) => Some((*flag, *follows)),
        _ => None,
    }
}

fn missing(flag: char, follows: Follows) -> String {
    let what = match follows {
        Follows::File => "a file name",
        Follows::Number => "a number",
        Follows::Text | Follows::Nothing => "a string",
    };
    format!("option -{flag} requires {what}")
}

/// Digits only; twemproxy keeps them in a C `int`.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse::<u32>().ok().filter(|number| digits && i32::try_from(*number).is_ok())
}

/// What may be typed.
pub(crate) fn usage() -> String {
    format!(
        "\
Usage: nutcracker [-?hVdDt] [-v verbosity level] [-o output file]
                  [-c conf file] [-s stats port] [-a stats addr]
                  [-i stats interval] [-p pid file] [-m mbuf size]

Options:
  -h, --help             : shows this help
  -V, --version          : shows the version
  -t, --test-conf        : reads the configuration and says whether it is right
  -d, --daemonize        : runs in the background
  -D, --describe-stats   : says what the numbers on the stats port are
  -v, --verbose=N        : how much is logged (default: {LOG_LEVEL}, min: 0, max: {LOG_LEVEL_MAX})
  -o, --output=S         : the log file (default: stderr)
  -c, --conf-file=S      : the configuration (default: {}, else {})
  -s, --stats-port=N     : the port that numbers are served on (default: {STATS_PORT})
  -a, --stats-addr=S     : the address of that port (default: {STATS_ADDR})
  -i, --stats-interval=N : how old the numbers may be, in ms (default: {STATS_INTERVAL_MS})
  -p, --pid-file=S       : the file to write the process id to (default: off)
  -m, --mbuf-size=N      : taken and not used: buffers find their size themselves
",
        CONF_FILES[0], CONF_FILES[1]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn flags_come_in_any_order_joined_or_by_name() {
        let all = Options {
            daemonize: true,
            test_conf: true,
            log_level: 7,
            output: Some("l".into()),
            conf_file: Some("c".into()),
            stats_port: 1,
            stats_addr: "::1".to_owned(),
            stats_interval: Duration::from_millis(5),
            pid_file: Some("p".into()),
            mbuf_size: 512,
            ..Options::default()
        };
        let lines = [
            "-d -t -v 7 -o l -c c -s 1 -a ::1 -i 5 -p p -m 512",
            "-dtv7 -ol -cc -s1 -a::1 -i5 -pp -m512",
            "--daemonize --test-conf --verbose=7 --output l --conf-file=c --stats-port 1 --stats-addr=::1 \
             --stats-interval=5 --pid-file p --mbuf-size=512",
            "--da --te --verb 7 --o=l --c c --stats-p=1 --stats-a=::1 --stats-i=5 --p p --m=512",
            "aside -d more -t -v 9 -v 7 -o l -c c -s 1 -a ::1 -i 5 -p p -m 512 - -- -V",
        ];
        for line in lines {
            assert_eq!(parse(line), Ok(all.clone()), "{line}");
        }
        assert_eq!(parse(""), Ok(Options::default()));
        let help = parse("-h").unwrap();
        assert!(help.show_version && help.show_help && !help.describe_stats);
        assert!(parse("-D").unwrap().describe_stats && parse("-V").unwrap().show_version);
        assert_eq!(parse("-v 99").unwrap().log_level, 11);
        assert_eq!(parse("-i 0").unwrap().stats_interval, Duration::from_millis(1));
    }

    #[test]
    fn what_is_wrong_is_said_as_twemproxy_does() {
        let cases = [
            ("-x", "invalid option -- 'x'"),
            ("-?", "invalid option -- '?'"),
            ("--foo", "invalid option -- '--foo'"),
            ("--stats", "invalid option -- '--stats'"),
            ("--help=1", "invalid option -- 'h'"),
            ("-c", "option -c requires a file name"),
            ("-a", "option -a requires a string"),
            ("-m", "option -m requires a number"),
            ("-m 0", "option -m requires a non-zero number"),
            ("-m 511", "mbuf chunk size must be between 512 and 16777216 bytes"),
            ("-m 16777217", "mbuf chunk size must be between 512 and 16777216 bytes"),
            ("-v x", "option -v requires a number"),
            ("-v -1", "option -v requires a number"),
            ("-s 0", "option -s value 0 is not a valid port"),
            ("-s 65536", "option -s value 65536 is not a valid port"),
            ("-i 1s", "option -i requires a number"),
        ];
        for (line, wrong) in cases {
            assert_eq!(parse(line), Err(wrong.to_owned()), "{line}");
        }
        assert!(parse("-m 512").is_ok() && parse("-m 16777216").is_ok() && parse("-s 65535").is_ok());
    }
}
