//! A mesh to which happens all the time what should happen rarely, for `cargo xtask drivers --chaos MODE`:
//! `chaos mux|cut|handover CONFIG`, where the configuration is JSON and has one listener and one server.
//!
//! ```text
//! mux       whoever gives a connection back gets another one, on which somebody has set everything otherwise
//! cut       bytes between client, mesh and server arrive in pieces of any length, most of them a few bytes long
//! handover  another mesh takes over the ports and sessions, and then the next
//! ```
//! No client may notice any of it. It ends when it is killed.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use mesh::{Mesh, MeshConfig, Successor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Of each read, as much is cut into pieces; the rest of a long row goes on at once, or the megabytes would take minutes.
const CUT_BYTES: usize = 1200;
/// Longest piece.
const PIECE_BYTES_MAX: usize = 9;
/// Between two handovers.
const HANDOVER_EVERY: Duration = Duration::from_millis(10);
/// What a handover may take; a session in the midst of a command stays behind.
const MOVE_MAX: Duration = Duration::from_secs(2);
/// Meshes that still serve sessions that could not move, those within TLS.
const OLD_MAX: usize = 200;
/// Looks between two lines of the log.
const TOLD_EVERY: usize = 500;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let mode = words.next().unwrap_or_default();
    let path = words.next().context("the configuration's path is missing")?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    let mut config: MeshConfig = serde_json::from_str(&text)?;
    let problems = config.problems();
    if !problems.is_empty() {
        bail!("{problems:?}");
    }
    match mode.as_str() {
        "mux" => {
            for pool in config.groups.values_mut().filter_map(|group| group.pool.as_mut()) {
                pool.chaos = true;
            }
            let mesh = Mesh::start(&config)?;
            loop {
                std::thread::park_timeout(Duration::from_secs(60));
                println!("{:?}", mesh.status().groups);
            }
        }
        "cut" => cut_all(config),
        "handover" => hand_over_all(&config),
        _ => bail!("`{mode}` is no mode\nhint: choose from mux, cut, handover"),
    }
}

/// Each mesh serves until the next has taken over, and as long as sessions are left with it.
fn hand_over_all(config: &MeshConfig) -> Result<()> {
    let mut now = Mesh::start(config)?;
    let mut old: Vec<Mesh> = Vec::new();
    let (mut handovers, mut moved, mut left) = (0, 0, 0);
    for number in 1.. {
        std::thread::sleep(HANDOVER_EVERY);
        if old.len() < OLD_MAX && now.status().sessions > 0 {
            let (one, other) = UnixStream::pair()?;
            let config = config.clone();
            let new = std::thread::spawn(move || -> Result<Mesh> {
                let mut successor = Successor::meet(other, "next")?;
                successor.watch = Duration::ZERO;
                let mesh = Mesh::start_as(&config, &mut successor)?;
                mesh.succeed(&successor)?;
                Ok(mesh)
            });
            let gave = now.hand_over(one, &[], Instant::now() + MOVE_MAX, &|| {});
            match (gave, new.join().map_err(|_| anyhow!("the next mesh panicked"))?) {
                (Ok(gave), Ok(mesh)) => {
                    handovers += 1;
                    moved += gave.moved;
                    left += gave.left;
                    old.push(std::mem::replace(&mut now, mesh));
                }
                (gave, came) => println!("no handover: {:?}, {:?}", gave.err(), came.err()),
            }
        }
        for index in (0..old.len()).rev() {
            if old[index].status().sessions == 0 {
                old.swap_remove(index).stop();
            }
        }
        if number % TOLD_EVERY == 0 {
            println!(
                "{handovers} handovers: {moved} sessions moved, {left} could not; {} serve",
                old.len() + 1
            );
        }
    }
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn cut_all(mut config: MeshConfig) -> Result<()> {
    let group = config.groups.values_mut().next().context("no group")?;
    let server: SocketAddr = group.backends.first().context("no server")?.addr.parse()?;
    let behind = TcpListener::bind("127.0.0.1:0").await?;
    group.backends[0].addr = behind.local_addr()?.to_string();
    let door = config.listeners.first_mut().context("no listener")?;
    let before = TcpListener::bind(door.bind).await?;
    door.bind = ([127, 0, 0, 1], 0).into();
    let name = door.name.clone();
    tokio::spawn(cutter(behind, server, 1));
    let mesh = Mesh::start(&config)?;
    cutter(before, mesh.addresses()[&name], 2).await;
    Ok(())
}

/// Whoever connects reaches `target`; bytes pass in pieces, each connection in its own, the same in every run.
async fn cutter(listener: TcpListener, target: SocketAddr, mut seed: u64) {
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = TcpStream::connect(target).await else { continue };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        seed = seed.wrapping_add(2);
        tokio::spawn(cut(from_client, to_server, seed));
        tokio::spawn(cut(from_server, to_client, !seed));
    }
}

async fn cut(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, seed: u64) -> Option<()> {
    let mut buffer = vec![0; 65536];
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    loop {
        let bytes = from.read(&mut buffer).await.ok().filter(|bytes| *bytes > 0)?;
        let mut at = 0;
        while at < bytes.min(CUT_BYTES) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Every other piece is a single byte.
            let piece = if random & 1 == 0 { 1 } else { 1 + (random >> 8) as usize % PIECE_BYTES_MAX };
            to.write_all(&buffer[at..(at + piece).min(bytes)]).await.ok()?;
            at += piece;
            // The other side has its turn to read this much alone.
            tokio::task::yield_now().await;
        }
        to.write_all(&buffer[at.min(bytes)..bytes]).await.ok()?;
    }
}
