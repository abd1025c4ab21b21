//! A C program, compiled here against the committed header and linked with the library, does what it should.

use std::{
    env,
    ffi::OsString,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};

/// Where cargo has put the library: beside this program.
fn library_dir() -> Result<PathBuf> {
    let program = env::current_exe()?;
    Ok(program
        .parent()
        .context("a program without a directory")?
        .to_owned())
}

/// Compiles the program and links it with the library.
fn compile(program: &Path) -> Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let libraries = library_dir()?;
    let mut rpath = OsString::from("-Wl,-rpath,");
    rpath.push(&libraries);
    let compiled = Command::new("cc")
        .args(["-std=c11", "-D_POSIX_C_SOURCE=200809L"])
        .args(["-pedantic", "-Wall", "-Wextra", "-Werror", "-g"])
        .arg("-I")
        .arg(here.join("include"))
        .arg(here.join("tests/monitor.c"))
        .arg("-L")
        .arg(libraries)
        .args(["-llb_health", "-pthread"])
        .arg(rpath)
        .arg("-o")
        .arg(program)
        .output()
        .context("cannot start cc")?;
    let errors = String::from_utf8_lossy(&compiled.stderr);
    ensure!(compiled.status.success(), "cc: {errors}");
    Ok(())
}

/// A server that accepts and drops connections.
fn accepting() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || listener.incoming().for_each(drop));
    Ok(address)
}

/// A server that answers each connection's first request with status 503.
fn unavailable() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A check is one small write: one read has the whole request. A client that left is no matter.
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    Ok(address)
}

#[test]
fn a_c_program_monitors_targets() -> Result<()> {
    // A bound socket that does not listen refuses connections and reserves the port.
    let refusing = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    refusing.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into())?;
    let port = refusing.local_addr()?.as_socket().context("no address")?.port();
    let dir = tempfile::tempdir()?;
    let program = dir.path().join("monitor");
    compile(&program)?;
    let output = Command::new(&program)
        .arg(accepting()?.to_string())
        .arg(format!("127.0.0.1:{port}"))
        .arg(unavailable()?.to_string())
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {errors}", output.status);
    Ok(())
}
