use super::*;
use std::fs;

fn one(server: &str) -> HeldServer {
    HeldServer { pool: "a".to_owned(), server: server.to_owned() }
}

fn all(servers: &[&str]) -> Held {
    servers.iter().map(|server| one(server)).collect()
}

fn directory(name: &str) -> RuntimeDir {
    let home = std::env::temp_dir().join(format!("beltway-holding-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&home);
    let directory = RuntimeDir::new(&home);
    directory.create().unwrap();
    directory
}

fn clear(directory: &RuntimeDir) {
    fs::remove_dir_all(directory.path()).unwrap();
}

/// As a manager begins with these generations alive, with a file that is whole.
fn begun(directory: &RuntimeDir, living: &[u64]) -> Holding {
    let mut holding = Holding::default();
    let nobody = || -> Result<_, String> { panic!("nobody is asked about a file that is whole") };
    assert_eq!(holding.recall(directory, living, nobody), Ok(()));
    assert!(holding.unsaid.is_empty(), "{:?}", holding.unsaid);
    holding
}

#[test]
fn while_the_file_cannot_be_read_nobody_is_told_and_it_is_not_written() {
    let directory = directory("unread");
    let file = directory.held_servers();
    fs::create_dir(&file).unwrap();
    let mut holding = Holding::default();
    let why = holding.recall(&directory, &[1], || Ok(vec![])).unwrap_err();
    assert!(why.starts_with(&format!("{}: ", file.display())), "{why}");
    assert!(holding.tellings(1, "of others").is_empty(), "nobody lets go of what it holds");
    let kv = config::parse("f", "{}").unwrap().kv;
    assert!(holding.forget_unknown(&directory, &kv).is_empty());
    assert!(holding.set(&directory, &one("u"), true, &[1]).unwrap_err().contains("is not known"));
    fs::remove_dir(&file).unwrap();
    all(&["s", "t"]).keep(&directory).unwrap();
    let mut holding = begun(&directory, &[1]);
    assert_eq!(holding.tellings(1, "of others"), [None]);
    assert_eq!(holding.set(&directory, &one("u"), true, &[1]), Ok(()));
    assert_eq!(Held::read(&directory).unwrap(), (all(&["s", "t", "u"]), vec![]));
    clear(&directory);
}

#[test]
fn of_a_damaged_file_what_is_whole_counts_and_what_the_servers_hold_that_live() {
    let directory = directory("damaged");
    let file = directory.held_servers();
    all(&["s", "t", "u"]).keep(&directory).unwrap();
    let damaged = fs::read_to_string(&file).unwrap().replace("\"t\"", "t").replace("\"u\"", "u");
    fs::write(&file, &damaged).unwrap();
    let mut restores = Restores::default();
    restores.add(2, one("v"));
    restores.keep(&directory).unwrap();

    let mut holding = Holding::default();
    let silent = holding.recall(&directory, &[1, 2], || Err("generation 1 does not say".to_owned()));
    assert!(silent.is_err() && holding.tellings(1, "").is_empty(), "it may know what nobody else does");
    assert_eq!(fs::read_to_string(&file).unwrap(), damaged);
    let theirs = || Ok(vec![(1, all(&["s", "t"])), (2, all(&["s", "v"]))]);
    holding.recall(&directory, &[1, 2], theirs).unwrap();
    let said = &holding.unsaid;
    assert!(said[0].contains("held:3: ") && said[1].contains("held:4: "), "{said:?}");
    assert!(said.len() == 3 && said[2].contains("t is held still by generation 1"), "{said:?}");
    assert_eq!(Held::read(&directory).unwrap(), (all(&["s", "t"]), vec![]), "v is restored, of which 2 is to hear");
    assert_eq!(fs::read_to_string(file.with_file_name("held.damaged.1")).unwrap(), damaged);
    assert_eq!(holding.tellings(2, ""), [Some(one("v"))]);
    clear(&directory);
}

#[test]
fn what_was_wrong_with_a_file_that_is_written_anew_is_said_also_when_the_other_must_wait() {
    let directory = directory("both");
    let (held, restored) = (directory.held_servers(), directory.restored_servers());
    for file in [&held, &restored] {
        fs::write(file, "[").unwrap();
    }
    let mut holding = Holding::default();
    holding.recall(&directory, &[1], || Err("generation 1 does not say".to_owned())).unwrap_err();
    let said = std::mem::take(&mut holding.unsaid);
    assert!(said.len() == 1 && said[0].starts_with(&format!("{}:1: ", restored.display())), "{said:?}");
    assert!(!restored.exists() && fs::read(&held).unwrap() == b"[");
    holding.recall(&directory, &[1], || Ok(vec![])).unwrap();
    let said = holding.unsaid;
    assert!(said.len() == 1 && said[0].starts_with(&format!("{}:1: ", held.display())), "{said:?}");
    clear(&directory);
}

#[test]
fn who_refuses_to_say_what_it_holds_or_is_not_there_is_asked_again_and_only_an_old_version_is_passed_over() {
    assert_eq!(said_to_be_held(Ok(Reply::Held(all(&["s"])))), Ok(all(&["s"])));
    let busy = "too many questions wait for an answer here: ask again".to_owned();
    assert_eq!(said_to_be_held(Err(ControlError::Refused(busy.clone()))), Err(busy));
    let nobody = ControlError::Absent(PathBuf::from("server.1.sock"), io::ErrorKind::NotFound.into());
    assert!(said_to_be_held(Err(nobody)).unwrap_err().contains("server.1.sock"));
    assert!(said_to_be_held(Ok(Reply::Done)).is_err());

    assert!(!holds_nothing(None), "it has not said of which version it is");
    assert!(!holds_nothing(Some(&Pong { held: Some(Held::default().digest()), ..Pong::default() })));
    assert!(holds_nothing(Some(&Pong::default())));
}

#[test]
fn the_file_is_written_again_when_somebody_damages_or_removes_it() {
    let directory = directory("assured");
    let file = directory.held_servers();
    let mut holding = begun(&directory, &[]);
    assert_eq!(holding.assure(&directory), Ok(None));
    holding.set(&directory, &one("s"), true, &[]).unwrap();
    assert_eq!(holding.assure(&directory), Ok(None));
    fs::write(&file, "[").unwrap();
    assert!(holding.assure(&directory).unwrap().is_some());
    assert_eq!(fs::read(file.with_file_name("held.damaged.1")).unwrap(), b"[");
    fs::remove_file(&file).unwrap();
    assert!(holding.assure(&directory).unwrap().is_some());
    assert_eq!(Held::read(&directory).unwrap(), (all(&["s"]), vec![]));
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(holding.assure(&directory).is_err());
    clear(&directory);
}

#[test]
fn of_a_file_that_manager_could_not_write_itself_it_is_not_said_that_somebody_changed_it() {
    let directory = directory("in-doubt");
    let mut holding = begun(&directory, &[]);
    holding.set(&directory, &one("s"), true, &[]).unwrap();
    holding.set(&directory, &one("t"), true, &[]).unwrap();
    // Where what is to come is written first.
    let in_the_way = directory.path().join(format!("held.{}.new", std::process::id()));
    let kv = "kv: {pools: {a: {listen: 127.0.0.1:2, servers: [\"127.0.0.1:1:1 s\"]}}}";
    let kv = config::parse("f", kv).unwrap().kv;
    let mut fails_then_is_written = |fail: &dyn Fn(&mut Holding), held: &[&str]| {
        fs::create_dir(&in_the_way).unwrap();
        fail(&mut holding);
        assert_eq!(Held::read(&directory).unwrap().0, all(&["s", "t"]));
        assert!(holding.assure(&directory).is_err());
        fs::remove_dir(&in_the_way).unwrap();
        let said = holding.assure(&directory).unwrap().unwrap();
        assert!(said.ends_with("/held: it could not be written before, and is written now"), "{said}");
        assert_eq!(holding.assure(&directory), Ok(None));
        assert_eq!(Held::read(&directory).unwrap(), (all(held), vec![]));
    };
    fails_then_is_written(&|holding| assert!(holding.set(&directory, &one("u"), true, &[]).is_err()), &["s", "t"]);
    fails_then_is_written(&|holding| assert_eq!(holding.forget_unknown(&directory, &kv), [one("t")]), &["s"]);
    fs::write(directory.held_servers(), "[").unwrap();
    assert!(holding.assure(&directory).unwrap().unwrap().contains("somebody changed it"));
    clear(&directory);
}

#[test]
fn what_is_restored_is_told_to_each_generation_until_it_has_heard_it_or_it_is_out_again() {
    let directory = directory("untold");
    let mut holding = begun(&directory, &[]);
    let same = Held::default().digest();
    holding.set(&directory, &one("s"), false, &[1, 2]).unwrap();
    holding.set(&directory, &one("t"), false, &[1]).unwrap();
    assert_eq!(holding.tellings(1, &same), [Some(one("s")), Some(one("t"))]);
    assert_eq!(holding.tellings(2, "other"), [Some(one("s"))], "it is told all that is held with it");
    assert!(holding.tellings(3, &same).is_empty());
    holding.set(&directory, &one("s"), true, &[1, 2]).unwrap();
    assert_eq!(holding.untold.iter().collect::<Vec<_>>(), [&(1, one("t"))]);
    let nothing = config::parse("f", "{}").unwrap().kv;
    assert_eq!(holding.forget_unknown(&directory, &nothing), [one("s")]);
    assert_eq!(holding.untold, Restores::default());
    clear(&directory);
}

#[test]
fn a_restore_that_was_not_heard_is_told_by_the_next_manager() {
    let directory = directory("next");
    let mut holding = begun(&directory, &[]);
    holding.set(&directory, &one("s"), true, &[1, 2]).unwrap();
    holding.set(&directory, &one("s"), false, &[1, 2]).unwrap();
    holding.settle(&directory, |of| of.0 != 1);
    // Manager dies, and generation 2 has not heard it.
    let same = Held::default().digest();
    let mut holding = begun(&directory, &[1, 2]);
    assert!(holding.tellings(1, &same).is_empty());
    assert_eq!(holding.tellings(2, &same), [Some(one("s"))]);
    holding.settle(&directory, |of| of.0 != 2);
    assert!(begun(&directory, &[1, 2]).tellings(2, &same).is_empty());
    assert!(!directory.restored_servers().exists());

    holding.set(&directory, &one("s"), false, &[2, 3]).unwrap();
    assert!(begun(&directory, &[4]).untold.iter().next().is_none(), "those who were to hear it are dead");
    // It died between the two files of a restore: nobody was told that it is done.
    all(&["s"]).keep(&directory).unwrap();
    let holding = begun(&directory, &[2, 3]);
    assert!(holding.tellings(2, &all(&["s"]).digest()).is_empty());
    clear(&directory);
}

#[test]
fn after_one_that_did_not_answer_nobody_is_waited_for_until_a_while_has_passed() {
    let mut holding = Holding::default();
    let now = SystemClock.now();
    let until = holding.patience(now).unwrap();
    holding.was_told(now, until);
    assert!(holding.patience(now).is_some(), "who answers is told again at once");
    holding.was_told(until, until);
    assert_eq!(holding.patience(until), None);
    let later = until + DEAF_FOR;
    assert_eq!(holding.patience(later), Some(later + HEARD_WITHIN));
}
