//! Debian's nginx as an origin: files from a directory.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use crate::process::Guard;
use crate::{Home, eventually, free_address};

/// A running nginx with a configuration and a directory of its own.
#[derive(Debug)]
pub struct Nginx {
    process: Guard,
    home: Home,
    address: SocketAddr,
}

impl Nginx {
    /// Starts it; `files` says which files it has, and is called with the directory they go to.
    #[must_use]
    pub fn start(files: impl FnOnce(&std::path::Path)) -> Self {
        let (home, address) = (Home::new(), free_address());
        let root = home.file("files");
        fs::create_dir(&root).unwrap();
        files(&root);
        let at = home.path().display();
        let text = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;\n\
             worker_rlimit_nofile 8192;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n\
               access_log off; sendfile on; keepalive_requests 1000000; client_max_body_size 0;\n\
               client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;\n\
               uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
               server {{ listen {address} backlog=4096; root {at}/files; }}\n\
             }}\n"
        );
        let file = home.file("nginx.conf");
        fs::write(&file, text).unwrap();
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| fs::exists(path).unwrap());
        let mut command = Command::new(program.unwrap_or("nginx"));
        command.arg("-c").arg(&file).arg("-p").arg(home.path()).stderr(fs::File::create(home.file("log")).unwrap());
        let mut nginx = Self { process: Guard::start(command), home, address };
        eventually("nginx listens", || {
            assert!(nginx.process.runs(), "nginx ended: {}{}", nginx.home.text("log"), nginx.home.text("error.log"));
            TcpStream::connect(address).ok()
        });
        nginx
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}
