//! An unmodified Linux kernel boots as a TD.
//!
//! The kernel and the initrd are built by `tools/guests/linux/build.sh`, into `target/linux`; `TDVISOR_LINUX=DIR` takes
//! them from another folder. `cargo test -- --include-ignored` runs these tests, and fails without the files.
//!
//! What the guest does is in `tools/guests/linux/init`: it prints a line for each step that the command line asks for.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cli::{Answer, Folder, tdvisor, tdvisor_with_input};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tdvisor_attest::report::TdReport;
use tdvisor_test_data::linux;

/// Boots are long and have threads of their own: one at a time keeps them comparable.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The kernel and the initrd, for as long as a test has the machine to itself.
struct Linux {
    kernel: String,
    initrd: String,
    _alone: MutexGuard<'static, ()>,
}

impl Linux {
    fn find() -> Self {
        let file = |name| linux::file(name).display().to_string();
        let (kernel, initrd) = (file("bzImage"), file("initrd"));
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        Self { kernel, initrd, _alone: alone }
    }

    /// Boots with these kernel parameters, and these options of `run`.
    fn boot(&self, parameters: &str, options: &[&str]) -> Boot {
        self.boot_and_type(parameters, options, "")
    }

    /// Boots in the same way, with a user who types.
    fn boot_and_type(&self, parameters: &str, options: &[&str], typed: &str) -> Boot {
        let command_line = format!("console=ttyS0 panic=-1 {parameters}");
        let mut args = vec!["run", "--kernel", &self.kernel, "--initrd", &self.initrd];
        args.extend(["--cmdline", &command_line, "--timeout", "300"]);
        args.extend(options);
        Boot { answer: tdvisor_with_input(&args, typed.as_bytes()), command_line }
    }
}

struct Boot {
    answer: Answer,
    command_line: String,
}

impl Boot {
    #[track_caller]
    fn ends_with(self, status: i32) -> Self {
        Self { answer: self.answer.ends_with(status), ..self }
    }

    /// The console or the summary has this.
    #[track_caller]
    fn shows(self, text: &str) -> Self {
        let (console, summary) = (self.answer.stdout(), self.answer.stderr());
        assert!(console.contains(text) || summary.contains(text), "'{text}' is not in:\n{console}{summary}");
        self
    }

    /// The init script passed a step.
    #[track_caller]
    fn passes(self, step: &str) -> Self {
        let text = format!("tdvisor-init: {step} ok");
        if without_kernel(&self.answer.stdout()).contains(&text) { self } else { self.shows(&text) }
    }

    /// Nothing was lost: the audit held, and everything came back.
    #[track_caller]
    fn leaves_nothing_behind(self) -> Self {
        self.shows("mirror = S-EPT = PAMT").shows("every page and the key id came back")
    }

    /// A file that the guest printed as base64.
    #[track_caller]
    fn file(&self, name: &str) -> Vec<u8> {
        let console = self.answer.stdout();
        let (begin, end) = (format!("tdvisor-init: begin {name}"), format!("tdvisor-init: end {name}"));
        let text: String = console
            .lines()
            .map(str::trim)
            .skip_while(|line| *line != begin)
            .skip(1)
            .take_while(|line| *line != end)
            .collect();
        STANDARD.decode(&text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"))
    }
}

/// What programs said on a console: a line of the kernel, which has a time in front, may stand in the middle of one of theirs.
fn without_kernel(console: &str) -> String {
    let is_time = |text: &str| {
        let time = text.split_once("] ").map(|(time, _)| time.trim_start());
        time.and_then(|time| time.split_once('.')).is_some_and(|(seconds, micros)| {
            let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            !seconds.is_empty() && digits(seconds) && micros.len() == 6 && digits(micros)
        })
    };
    let of_programs = |line: &str| {
        let mut brackets = line.match_indices('[');
        let time = brackets.find(|(at, _)| is_time(line.get(at + 1..).unwrap_or_default()));
        time.map_or_else(|| format!("{line}\n"), |(at, _)| line.get(..at).unwrap_or_default().to_owned())
    };
    console.lines().map(of_programs).collect()
}

#[test]
fn what_a_program_says_is_whole_though_the_kernel_speaks_in_between() {
    let console = "init: start\n[    2.5] no time\ninit: nm[    2.582733] CR2: [0]\n[   12.582806] Call Trace:\ni ok\n[x\n";
    assert_eq!(without_kernel(console), "init: start\n[    2.5] no time\ninit: nmi ok\n[x\n");
}

#[test]
#[ignore = "needs the Linux test guest"]
fn the_kernel_says_that_it_is_a_tdx_guest_and_its_registers_are_those_predicted() {
    let linux = Linux::find();
    let folder = Folder::new("linux-guest");
    let boot = linux
        .boot("tdvisor.steps=tdx,cpus,report,ccel", &[])
        .ends_with(0)
        .shows("tdx: Guest detected")
        .passes("tdx")
        .passes("cpus")
        .leaves_nothing_behind();

    let report = boot.file("report");
    let report = TdReport::from_bytes(&report).expect("the guest's TDREPORT has the size of one");
    let log = folder.write("ccel", boot.file("ccel"));
    let replayed = tdvisor(&["eventlog", "replay", &log, "--json"]).ends_with(0).json();
    let predicted = tdvisor(&[
        "measure",
        "--kernel",
        &linux.kernel,
        "--initrd",
        &linux.initrd,
        "--cmdline",
        &boot.command_line,
        "--memory",
        "512M",
        "--json",
    ])
    .ends_with(0)
    .json();
    for (number, rtmr) in report.td_info.rtmr.iter().enumerate() {
        let held: String = rtmr.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(replayed["registers"][number]["replayed"], held, "RTMR{number} against the log");
        if number < 3 {
            let value = &predicted["boot"]["registers"][format!("rtmr{number}")]["value"];
            assert_eq!(*value, held, "RTMR{number} against `tdvisor measure`");
        }
    }
}

#[test]
#[ignore = "needs the Linux test guest"]
fn two_and_four_cpus_come_online_and_answer_nmis() {
    let linux = Linux::find();
    for vcpus in ["2", "4"] {
        let parameters = format!("tdvisor.steps=cpus,nmi tdvisor.cpus={vcpus}");
        linux
            .boot(&parameters, &["--vcpus", vcpus])
            .ends_with(0)
            .shows(&format!("Brought up 1 node, {vcpus} CPUs"))
            .passes("cpus")
            .passes("nmi")
            .leaves_nothing_behind();
    }
}

#[test]
#[ignore = "needs the Linux test guest"]
fn a_disk_keeps_what_is_written_and_memory_can_all_be_touched() {
    let linux = Linux::find();
    let disk = Folder::new("linux-disk").write("disk.img", vec![0; 16 << 20]);
    linux
        .boot("tdvisor.steps=disk,memory", &["--vcpus", "2", "--disk", &disk])
        .ends_with(0)
        .passes("disk")
        .passes("memory")
        .leaves_nothing_behind();
    let kept = std::fs::read(&disk).expect("the disk is still there");
    assert!(kept.iter().any(|byte| *byte != 0), "the guest wrote to the file");
}

#[test]
#[ignore = "needs the Linux test guest"]
fn several_disks_have_their_serials_and_one_may_be_read_only() {
    let linux = Linux::find();
    let folder = Folder::new("linux-disks");
    let [first, second, third] =
        ["a,b.img", "second.img", "third.img"].map(|name| folder.write(name, vec![0x5a; 4 << 20]));
    let disks = [first.replace(',', ",,"), format!("{second},ro,serial=only read"), third];
    let options: Vec<&str> = disks.iter().flat_map(|disk| ["--disk", disk]).collect();
    linux
        .boot("tdvisor.steps=disks,rng", &options)
        .ends_with(0)
        .shows("disk=vda sectors=8192 ro=0 serial=tdvisor-disk-0")
        .shows("disk=vdb sectors=8192 ro=1 serial=only read")
        .shows("disk=vdc sectors=8192 ro=0 serial=tdvisor-disk-2")
        .passes("disks")
        .passes("rng")
        .leaves_nothing_behind();
    let bytes = |path: &str| std::fs::read(path).expect("the disk is still there");
    assert_eq!(bytes(&second), vec![0x5a; 4 << 20], "a disk that is only read stays as it is");
    let discarded = bytes(&first);
    assert_eq!(discarded.len(), 4 << 20);
    assert!(discarded[2 << 20..].iter().all(|byte| *byte == 0x5a), "behind what was discarded");
}

#[test]
#[ignore = "needs the Linux test guest"]
fn the_virtio_console_shows_the_boot_and_takes_what_is_typed() {
    let linux = Linux::find();
    let typed = "open sesame\n";
    linux
        .boot_and_type("console=hvc0 tdvisor.steps=hvc", &["--vcpus", "2"], typed)
        .ends_with(0)
        .shows("tdvisor-hvc: you typed 'open sesame'")
        .shows("console=ttyS0,hvc0")
        .passes("hvc")
        .leaves_nothing_behind();
}

/// What somebody says until it says no more.
fn all_of(mut stream: impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("the other side closes in order");
    all
}

#[test]
#[ignore = "needs the Linux test guest"]
fn programs_and_guest_call_each_other_over_vsock() {
    let linux = Linux::find();
    let socket = Folder::new("linux-vsock").path("v.sock");
    let [ping, ready] = ["4000", "4001"]
        .map(|port| UnixListener::bind(format!("{socket}_{port}")).expect("a socket can be made"));
    let program = std::thread::spawn({
        let socket = socket.clone();
        move || {
            let (mut guest, _) = ping.accept().expect("the guest calls");
            assert_eq!(all_of(&guest), b"ping\n", "and shuts down its direction");
            guest.write_all(b"pong").expect("the guest listens");
            drop(guest);
            let (guest, _) = ready.accept().expect("the guest says that it can be called");
            assert_eq!(all_of(&guest), b"ready");
            drop(guest);
            // More than every buffer between the two.
            let said: Vec<u8> = (0..1u32 << 20).map(|at| (at / 253) as u8).collect();
            let mut guest = UnixStream::connect(&socket).expect("the device listens");
            guest.write_all(b"CONNECT 5000\n").expect("the device reads");
            let mut answer = BufReader::new(guest.try_clone().expect("a descriptor"));
            let mut line = String::new();
            answer.read_line(&mut line).expect("the guest grants it");
            assert_eq!(line, "OK 1073741824\n");
            let listener = std::thread::spawn(move || all_of(answer));
            guest.write_all(&said).expect("the guest reads");
            guest.shutdown(Shutdown::Write).expect("the other direction goes on");
            let heard = listener.join().expect("the guest answers whole");
            assert!(heard == said, "{} bytes of {} came back", heard.len(), said.len());
        }
    });
    let options = ["--vcpus", "2", "--vsock", &format!("{socket},cid=77")];
    linux
        .boot("tdvisor.steps=vsock", &options)
        .ends_with(0)
        .passes("vsock")
        .shows("answer=pong")
        .leaves_nothing_behind();
    program.join().expect("the program's side");
    assert!(!std::path::Path::new(&socket).exists(), "the socket goes with the run");
}

/// Answers every question: tdvisor.example has an address, and nothing else has anything.
fn answer_for_names(server: &UdpSocket) {
    const NAME: &[u8] = b"\x07tdvisor\x07example\0";
    const A: &[u8] = &[0, 1, 0, 1];
    let mut question = [0; 512];
    while let Ok((length, from)) = server.recv_from(&mut question) {
        let (Some(id), Some(asked)) = (question.get(..2), question.get(12..length)) else { continue };
        let is_known = asked.starts_with(&[NAME, A].concat());
        // A response, recursion available, no error; one question, and one answer or none.
        let header = [id, &[0x81, 0x80, 0, 1, 0, u8::from(is_known), 0, 0, 0, 0], asked].concat();
        let answer = [&[0xc0, 12][..], A, &[0, 0, 0, 60, 0, 4, 192, 0, 2, 80]].concat();
        let packet = if is_known { [header, answer].concat() } else { header };
        server.send_to(&packet, from).expect("the guest hears");
    }
}

#[test]
#[ignore = "needs the Linux test guest"]
fn the_user_network_carries_names_connections_and_datagrams_both_ways() {
    let linux = Linux::find();
    let here = (Ipv4Addr::LOCALHOST, 0);
    let names = UdpSocket::bind(here).expect("a port");
    let (tcp, udp) = (TcpListener::bind(here).expect("a port"), UdpSocket::bind(here).expect("a port"));
    let port = |address: std::io::Result<std::net::SocketAddr>| address.expect("it is bound").port();
    let (tcp_port, udp_port, names_port) =
        (port(tcp.local_addr()), port(udp.local_addr()), port(names.local_addr()));
    // Ports that were free a moment ago.
    let into_tcp = port(TcpListener::bind(here).expect("a port").local_addr());
    let into_udp = port(UdpSocket::bind(here).expect("a port").local_addr());
    // It ends with the process.
    std::thread::spawn(move || answer_for_names(&names));
    let program = std::thread::spawn(move || {
        let (mut guest, _) = tcp.accept().expect("the guest connects");
        assert_eq!(all_of(&guest), b"ping\n");
        guest.write_all(b"pong").expect("the guest listens");
        drop(guest);
        let mut datagram = [0; 64];
        let (length, from) = udp.recv_from(&mut datagram).expect("the guest sends");
        assert_eq!(&datagram[..length], b"ping\n");
        udp.send_to(b"pung", from).expect("the guest listens");
        // It can be called over TCP: more than every buffer between the two.
        assert_eq!(all_of(tcp.accept().expect("the guest says so").0), b"ready");
        let said: Vec<u8> = (0..1u32 << 20).map(|at| (at / 253) as u8).collect();
        let mut guest = TcpStream::connect((Ipv4Addr::LOCALHOST, into_tcp)).expect("the port is forwarded");
        let answer = guest.try_clone().expect("a descriptor");
        let listener = std::thread::spawn(move || all_of(answer));
        guest.write_all(&said).expect("the guest reads");
        guest.shutdown(Shutdown::Write).expect("the other direction goes on");
        let heard = listener.join().expect("the guest answers whole");
        assert!(heard == said, "{} bytes of {} came back", heard.len(), said.len());
        // And by datagrams.
        let (length, from) = udp.recv_from(&mut datagram).expect("the guest says so");
        assert_eq!(&datagram[..length], b"ready");
        udp.send_to(b"go", from).expect("the guest listens");
        let caller = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        caller.connect((Ipv4Addr::LOCALHOST, into_udp)).expect("the port is forwarded");
        for word in [&b"hello"[..], b"", b""] {
            caller.send(word).expect("the port is forwarded");
            if !word.is_empty() {
                let length = caller.recv(&mut datagram).expect("the guest answers");
                assert_eq!(&datagram[..length], word);
            }
        }
    });
    let net = format!("user,host,dns=127.0.0.1:{names_port}");
    let (forward_tcp, forward_udp) = (format!("{into_tcp}:5000"), format!("udp:{into_udp}:5001"));
    let options = ["--vcpus", "2", "--net", &net, "--forward", &forward_tcp, "--forward", &forward_udp];
    linux
        .boot(&format!("tdvisor.steps=net tdvisor.tcp={tcp_port} tdvisor.udp={udp_port}"), &options)
        .ends_with(0)
        .shows("lease ip=10.0.2.15/24 router=10.0.2.2 dns=10.0.2.3")
        .passes("net")
        .shows("tcp=pong udp=pung")
        .leaves_nothing_behind();
    program.join().expect("the program's side");
}

#[test]
#[ignore = "needs the Linux test guest"]
fn a_folder_of_the_host_is_read_whole_and_neither_written_nor_left() {
    let linux = Linux::find();
    let folder = Folder::new("linux-share");
    let secret = folder.write("secret", "secret");
    let inside = |name: &str| folder.path(&format!("shared/{name}"));
    std::fs::create_dir_all(inside("deep/er")).expect("a folder");
    std::fs::create_dir_all(inside("many")).expect("a folder");
    // Larger than a request, and not a multiple of one.
    let large: Vec<u8> = (0..3_000_001u32).map(|at| (at / 251) as u8).collect();
    for (name, contents) in [("a", &b"hello\n"[..]), ("empty", b""), ("deep/er/large", &large)] {
        std::fs::write(inside(name), contents).expect("a file");
    }
    for number in 0..1500 {
        std::fs::write(inside(&format!("many/a name that takes some room {number:04}")), "").expect("a file");
    }
    for (link, target) in [("link", "deep/er/large"), ("escape", secret.as_str())] {
        std::os::unix::fs::symlink(target, inside(link)).expect("a link");
    }
    let boot = linux
        .boot("tdvisor.steps=share", &["--vcpus", "2", "--share", &format!("{},ro", folder.path("shared"))])
        .ends_with(0)
        .shows("tdvisor-share: ./deep/er/large")
        .shows("tdvisor-share: ./link -> deep/er/large")
        .shows(&format!("tdvisor-share: ./escape -> {secret}"))
        .passes("share")
        .shows("entries=1500")
        .leaves_nothing_behind();
    let md5 =
        std::process::Command::new("md5sum").arg(inside("deep/er/large")).output().expect("md5sum runs");
    let sum = String::from_utf8_lossy(&md5.stdout).chars().take(32).collect::<String>();
    boot.shows(&format!("tdvisor-share: {sum}  ./deep/er/large"));
    assert_eq!(std::fs::read(inside("a")).expect("it is still there"), b"hello\n");
    assert!(!std::path::Path::new(&inside("new")).exists());
}

#[test]
#[ignore = "needs the Linux test guest"]
fn small_pages_make_no_difference_to_the_guest() {
    let linux = Linux::find();
    linux
        .boot("tdvisor.steps=tdx,cpus,memory tdvisor.memory=64", &["--vcpus", "2", "--max-page", "4K"])
        .ends_with(0)
        .passes("cpus")
        .passes("memory")
        .leaves_nothing_behind();
}

#[test]
#[ignore = "needs the Linux test guest"]
fn a_host_whose_calls_are_busy_and_interrupted_makes_no_difference_to_the_guest() {
    let linux = Linux::find();
    // Bounce buffers of 1 MiB: what is shared is half of a page that was accepted as 2M.
    let disk = Folder::new("linux-faults").write("disk.img", vec![0; 16 << 20]);
    let plan = "TDH.MEM.PAGE.DEMOTE#1..2=INTERRUPTED_RESTARTABLE,TDH.MEM.PAGE.AUG#100..110=OPERAND_BUSY:RCX,\
                chaos:11/50";
    let boot = linux
        .boot(
            "swiotlb=512 tdvisor.steps=tdx,cpus,disk,memory tdvisor.memory=64",
            &["--vcpus", "2", "--disk", &disk, "--inject", plan, "-v"],
        )
        .ends_with(0)
        .passes("cpus")
        .passes("disk")
        .passes("memory")
        .leaves_nothing_behind();
    let summary = boot.answer.stderr();
    let demotes =
        summary.split("TDH.MEM.PAGE.DEMOTE ").nth(1).and_then(|rest| rest.split([',', '\n']).next());
    let demotes: u32 = demotes.and_then(|count| count.parse().ok()).unwrap_or_default();
    assert!(demotes >= 3, "two interrupted demotions and one that succeeds, not {demotes}:\n{summary}");
}

#[test]
#[ignore = "needs the Linux test guest"]
fn a_seed_repeats_a_boot_byte_for_byte_and_no_timer_tick_is_lost() {
    let linux = Linux::find();
    let folder = Folder::new("linux-deterministic");
    let traces = ["first", "second"].map(|name| folder.path(name));
    let consoles = traces.each_ref().map(|trace| {
        let options = ["--vcpus", "2", "--deterministic", "7", "--trace", trace];
        let parameters = "tdvisor.steps=cpus,busy tdvisor.busy=1 tdvisor.ticks=strict";
        linux.boot(parameters, &options).ends_with(0).passes("busy").leaves_nothing_behind().answer.stdout()
    });
    assert_eq!(consoles[0], consoles[1], "the consoles");
    let read = |trace: &String| std::fs::read(trace).expect("the trace was written");
    assert!(
        read(&traces[0]) == read(&traces[1]),
        "the traces differ: compare {} and {}",
        traces[0],
        traces[1]
    );
}

#[test]
#[ignore = "needs the Linux test guest"]
fn both_engines_make_the_same_boot_byte_for_byte() {
    let linux = Linux::find();
    let folder = Folder::new("linux-engines");
    let boots = ["interpreter", "compiler"].map(|engine| {
        let trace = folder.path(engine);
        let options = ["--deterministic", "9", "--engine", engine, "--trace", &trace];
        let parameters = "tdvisor.steps=cpus,busy tdvisor.busy=1";
        let boot = linux.boot(parameters, &options).ends_with(0).passes("busy").leaves_nothing_behind();
        (boot.answer.stdout(), trace)
    });
    assert_eq!(boots[0].0, boots[1].0, "the consoles");
    let read = |trace: &String| std::fs::read(trace).expect("the trace was written");
    let [(_, interpreted), (_, compiled)] = &boots;
    assert!(read(interpreted) == read(compiled), "the traces differ: compare {interpreted} and {compiled}");
}

#[test]
#[ignore = "needs the Linux test guest"]
fn the_exit_status_is_the_guests() {
    let linux = Linux::find();
    let ends = |how: &str| linux.boot(&format!("tdvisor.steps=none tdvisor.end={how}"), &[]);
    ends("panic").ends_with(1).shows("the guest's kernel panicked").leaves_nothing_behind();
    ends("reboot").ends_with(1).shows("the guest asked for a reboot").leaves_nothing_behind();
    ends("exit:7").ends_with(1).shows("the guest powered off: failure 7").leaves_nothing_behind();
    ends("poweroff").ends_with(0).shows("the guest powered off: success").leaves_nothing_behind();
}

#[test]
#[ignore = "needs the Linux test guest"]
fn files_that_cannot_boot_are_named_in_one_line() {
    let linux = Linux::find();
    let folder = Folder::new("linux-bad-files");
    let whole = std::fs::read(&linux.kernel).expect("the kernel was built");
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let huge = folder.write("huge", vec![1; 600 << 20]);
    let qcow2 = folder.write("qcow2", [b"QFI\xfb\0\0\0\x03".as_slice(), &[0; 65536]].concat());
    let cases: [(&[&str], &str); 9] = [
        (&["--kernel", &folder.path("absent")], "absent"),
        (&["--kernel", &folder.write("damaged", &damaged)], "damaged"),
        (&["--kernel", &folder.write("cut", &whole[..whole.len() / 2])], "cut off"),
        (&["--kernel", &folder.write("text", "not a kernel")], "neither a bzImage nor an ELF"),
        (&["--kernel", &linux.kernel, "--initrd", &huge], "--memory"),
        (&["--kernel", &linux.kernel, "--disk", &folder.path("no.img")], "no.img"),
        (&["--kernel", &linux.kernel, "--disk", &qcow2], "qemu-img convert -f qcow2 -O raw"),
        (&["--kernel", &linux.kernel, "--disk", &qcow2, "--disk", &qcow2], "the same file"),
        (&["--kernel", &linux.kernel, "--initrd", &folder.write("empty", "")], "empty"),
    ];
    for (options, named) in cases {
        let line = tdvisor(&[&["run"], options].concat()).ends_with(2).one_line_of_error();
        assert!(line.contains(named), "'{named}' is not in: {line}");
    }
}

/// An ELF kernel that does what one without TDX support does first: it executes CPUID, which raises #VE in a TD, and has no
/// handler for it.
fn kernel_without_tdx() -> Vec<u8> {
    const LOAD: u64 = 16 << 20;
    const HEADERS: u64 = 64 + 56;
    // An empty interrupt table (LIDT of the ten zeros at the end), then CPUID of leaf 0x40000000.
    let code = [&[0x0f, 0x01, 0x1d, 7, 0, 0, 0, 0xb8, 0, 0, 0, 0x40, 0x0f, 0xa2][..], &[0; 10]].concat();
    let size = HEADERS + code.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2u16, 62, 1, 0] {
        elf.extend(half.to_le_bytes());
    }
    for word in [LOAD + HEADERS, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    for half in [0u16, 0, 64, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1u32.to_le_bytes());
    elf.extend(7u32.to_le_bytes());
    for word in [0, LOAD, LOAD, size, size, 1 << 12] {
        elf.extend(word.to_le_bytes());
    }
    [elf, code].concat()
}

#[test]
fn a_kernel_without_tdx_support_ends_with_a_hint() {
    let kernel = Folder::new("linux-without-tdx").write("vmlinux", kernel_without_tdx());
    let answer = tdvisor(&["run", "--kernel", &kernel, "--timeout", "60"]).ends_with(3);
    let (console, summary) = (answer.stdout(), answer.stderr());
    assert!(summary.contains("triple fault on vCPU 0"), "{console}{summary}");
    assert!(summary.contains("CONFIG_INTEL_TDX_GUEST"), "{console}{summary}");
}

/// Three boots here; `TDVISOR_BOOTS=100` for the long run.
#[test]
#[ignore = "needs the Linux test guest"]
fn boots_in_a_row_neither_hang_nor_fail() {
    let linux = Linux::find();
    let boots = std::env::var("TDVISOR_BOOTS").ok().and_then(|text| text.parse().ok()).unwrap_or(3u32);
    for boot in 1..=boots {
        println!("boot {boot} of {boots}");
        linux.boot("tdvisor.steps=cpus tdvisor.cpus=2", &["--vcpus", "2"]).ends_with(0).passes("cpus");
    }
}

/// A command in the guest.
fn command(linux: &Linux, options: &[&str], words: &[&str]) -> Answer {
    let mut args = vec!["run", "--kernel", &linux.kernel, "--timeout", "300"];
    args.extend(options);
    args.push("--");
    args.extend(words);
    tdvisor(&args)
}

#[test]
#[ignore = "needs the Linux test guest"]
fn a_command_has_its_own_streams_and_its_own_exit_status() {
    let linux = Linux::find();
    let answer = command(&linux, &[], &["sh", "-c", "echo hi; echo oh >&2; exit 7"]).ends_with(7);
    assert_eq!((answer.stdout().as_str(), answer.stderr().as_str()), ("hi\n", "oh\n"));

    let json = command(&linux, &["--json"], &["sh", "-c", "kill -KILL $$"]).ends_with(137).json();
    assert_eq!(json["command"], serde_json::json!({"killed": 9}));
    assert_eq!(json["ending"]["kind"], "powered-off", "the guest itself ends in order");
}

#[test]
#[ignore = "needs the Linux test guest"]
fn a_script_finds_its_programs_its_folder_and_what_was_copied() {
    let linux = Linux::find();
    let folder = Folder::new("command-script");
    for (name, text) in [
        ("test.sh", "#!/bin/sh\necho TAP version 14\n./helper.sh \"$1\" | sort\ncat /srv/data\nwc -c\n"),
        ("helper.sh", "#!/bin/sh\nprintf 'ok 2\\nok 1 - %s\\n' \"$1\"\n"),
    ] {
        let path = folder.write(name, text);
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, executable).expect("a script can be made executable");
    }
    let copy = format!("{}:/srv/data", folder.write("data", "copied\n"));
    let mut call = Command::new(env!("CARGO_BIN_EXE_tdvisor"));
    call.current_dir(folder.path("")).args(["run", "--kernel", &linux.kernel, "--timeout", "300"]);
    call.args(["--copy", &copy, "--", "./test.sh", "a b"]);
    let mut call = call.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // More than a serial port or a terminal's buffer holds.
    let input = vec![b'x'; 20_000];
    call.stdin.take().unwrap().write_all(&input).unwrap();
    let output = call.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(out, "TAP version 14\nok 1 - a b\nok 2\ncopied\n20000\n", "{err}");
    assert_eq!(output.status.code(), Some(0), "{err}");
}

#[test]
#[ignore = "needs the Linux test guest"]
fn a_command_begins_in_its_folder_also_where_the_guest_mounts_over_it() {
    let linux = Linux::find();
    for place in ["/tmp", "/dev/shm", "/run"] {
        let folder = Path::new(place).join(format!("tdvisor-test-{}", std::process::id()));
        let Ok(()) = std::fs::create_dir(&folder) else {
            assert_eq!(place, "/run", "{place} is everybody's to write to");
            continue;
        };
        let script = folder.join("test.sh");
        std::fs::write(&script, "#!/bin/sh\npwd\necho new > file && cat file\n").unwrap();
        std::fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
        let arguments = ["run", "--kernel", &linux.kernel, "--timeout", "300", "--", "./test.sh"];
        let output =
            Command::new(env!("CARGO_BIN_EXE_tdvisor")).args(arguments).current_dir(&folder).output();
        std::fs::remove_dir_all(&folder).unwrap();
        let output = output.unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(out, format!("{}\nnew\n", folder.display()), "{err}");
        assert_eq!(output.status.code(), Some(0), "{err}");
    }
}

#[test]
#[ignore = "needs the Linux test guest"]
fn a_command_that_cannot_run_and_a_guest_that_does_not_tell_have_statuses_of_their_own() {
    let linux = Linux::find();
    let missing = command(&linux, &["--initrd", &linux.initrd], &["no-such-program"]).ends_with(127);
    assert!(missing.stderr().contains("no-such-program"), "{}", missing.stderr());
    // What follows is for a first process, not for the kernel: it finds none, and panics.
    let lost = command(&linux, &["--append=--"], &["true"]).ends_with(125).stderr();
    assert!(
        lost.contains("Kernel panic") && lost.contains("the last lines of the guest's console"),
        "{lost}"
    );
    command(&linux, &[], &["/no/such/program"]).ends_with(2);
}

#[test]
#[ignore = "needs the Linux test guest"]
fn a_command_repeats_in_a_deterministic_run() {
    let linux = Linux::find();
    let run = || {
        let options = ["--deterministic", "7", "-v"];
        let answer = command(&linux, &options, &["sh", "-c", "read x || echo no input"]).ends_with(0);
        assert_eq!(answer.stdout(), "no input\n");
        let said = answer.stderr();
        said.lines()
            .filter(|line| !line.trim_start().starts_with("time"))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    assert_eq!(run(), run());
}

#[test]
#[ignore = "needs the Linux test guest"]
fn a_command_has_a_folder_of_this_machine_as_its_root_and_cannot_write_there() {
    let linux = Linux::find();
    let kernel = ["run", "--kernel", &linux.kernel, "--timeout", "300", "--rootfs", "/", "--", "sh", "-c"];
    let run = |script: &str| {
        let mut words = kernel.to_vec();
        words.push(script);
        tdvisor(&words)
    };
    let here = std::fs::read_to_string("/etc/os-release").expect("a distribution");
    let answer = run(
        "cat /etc/os-release; pwd; uname -v; echo x >/tmp/x && cat /tmp/x; echo lost >/etc/tdvisor-was-here; exit 7",
    );
    let (out, err) = (answer.stdout(), answer.stderr());
    answer.ends_with(7);
    assert!(out.starts_with(&here), "{out}{err}");
    assert!(out.contains(env!("CARGO_MANIFEST_DIR")), "it begins where it was typed: {out}");
    assert!(out.ends_with("\nx\n"), "/tmp is memory: {out}");
    assert!(err.contains("Read-only file system"), "{err}");
    assert!(!std::path::Path::new("/etc/tdvisor-was-here").exists());
    let refused = tdvisor(&["run", "--kernel", &linux.kernel, "--rootfs", "/no/such/folder", "--", "true"]);
    assert!(refused.ends_with(2).one_line_of_error().contains("/no/such/folder"));
}
