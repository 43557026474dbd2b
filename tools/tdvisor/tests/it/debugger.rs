//! `run --gdb`: what a client of gdb's remote protocol can do to a TD, and what the TD notices of it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cli::{Folder, tdvisor};
use crate::rsp::Rsp;
use object::{Object, ObjectSymbol};
use tdvisor_test_data::linux;

/// Offsets in the `g` packet.
const RSP: usize = 7 * 8;
const RIP: usize = 16 * 8;

/// A TD, or a server, that waits for its debugger.
struct Debugged {
    child: Child,
    socket: String,
}

impl Debugged {
    fn start(name: &str, options: &[&str]) -> Self {
        Self::of("run", name, options)
    }

    fn of(command: &str, name: &str, options: &[&str]) -> Self {
        let socket = Folder::new(name).path("gdb");
        let mut args = vec![command, "--gdb", &socket, "--timeout", "600"];
        args.extend(options);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tdvisor"));
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { child: command.spawn().expect("tdvisor starts"), socket }
    }

    /// Waits until a client can connect, and is none.
    fn wait_for_socket(&self) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !Path::new(&self.socket).exists() {
            assert!(Instant::now() < deadline, "{} is not there", self.socket);
            std::thread::yield_now();
        }
    }

    fn connect(&self) -> Rsp {
        Rsp::connect(&self.socket)
    }

    #[track_caller]
    fn ends_with(self, status: i32) -> String {
        let output = self.child.wait_with_output().expect("tdvisor can be waited for");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{text}");
        text.into_owned()
    }
}

/// The address of a function of hello-td.
fn function(parts: &[&str]) -> u64 {
    let file = object::File::parse(tdvisor_guest_images::HELLO_TD.elf).expect("hello-td is an ELF file");
    let symbol = file.symbols().find(|symbol| {
        let name = symbol.name().unwrap_or_default();
        parts.iter().all(|part| name.contains(part))
    });
    symbol.unwrap_or_else(|| panic!("hello-td has {parts:?}")).address()
}

#[test]
fn breakpoints_steps_and_watchpoints_stop_a_td_that_does_not_notice() {
    let init = function(&["guest_rt", "cpu", "4init"]);
    let td = Debugged::start("gdb-hello", &["hello-td"]);
    let mut gdb = td.connect();
    assert!(gdb.ask("qSupported:multiprocess+;swbreak+;hwbreak+").contains("swbreak+"));
    assert!(gdb.ask("?").starts_with("T05"), "the TD stands");
    assert_eq!(gdb.register(RIP), 0xFFFF_FFF0, "before its first instruction");
    assert!(gdb.ask("qXfer:features:read:target.xml:0,fff").contains("i386:x86-64"));

    assert!(gdb.ask("vCont;s:1").starts_with("T05"), "a step");
    assert_ne!(gdb.register(RIP), 0xFFFF_FFF0);

    assert_eq!(gdb.ask(&format!("Z0,{init:x},1")), "OK");
    let stop = gdb.ask("vCont;c");
    assert!(stop.starts_with("T05") && stop.contains("swbreak"), "{stop}");
    assert_eq!(gdb.register(RIP), init);
    let text = gdb.memory(init, 16);
    let file = object::File::parse(tdvisor_guest_images::HELLO_TD.elf).expect("hello-td is an ELF file");
    let wanted = {
        use object::ObjectSection;
        let section = file.sections().find(|at| (at.address()..at.address() + at.size()).contains(&init));
        let section = section.expect("the function lies in a section");
        section.data_range(init, 16).expect("its bytes can be read").expect("they are in the file").to_vec()
    };
    assert_eq!(text, wanted, "no byte of the code is another with a breakpoint on it");
    assert_eq!(gdb.ask(&format!("z0,{init:x},1")), "OK");

    let stack = gdb.register(RSP);
    assert_eq!(gdb.ask(&format!("Z2,{:x},8", stack - 8)), "OK");
    let stop = gdb.ask("vCont;c");
    assert!(stop.contains("watch:"), "{stop}");
    assert!(!gdb.memory(stack - 8, 8).is_empty());
    assert_eq!(gdb.ask(&format!("z2,{:x},8", stack - 8)), "OK");

    // gdb numbers RAX 0. What is written is there, and is put back.
    let all = gdb.ask("g");
    let changed = format!("{}{}", "efbeadde00000000", &all[16..]);
    assert_eq!(gdb.ask(&format!("G{changed}")), "OK");
    assert_eq!(gdb.register(0), 0xDEAD_BEEF);
    assert_eq!(gdb.ask(&format!("G{all}")), "OK");
    let cr3 = format!("{}{}", &all[..all.len() - 16], "ffffffffffffffff");
    assert!(gdb.ask(&format!("G{cr3}")).starts_with('E'), "a control register is the module's");

    assert!(gdb.memory(0xdead_0000_0000_0000, 8).is_empty(), "nothing is mapped there");
    assert_eq!(gdb.ask("D"), "OK");
    drop(gdb);
    let said = td.ends_with(0);
    assert!(said.contains("although it is not in debug mode; only an emulator can do this"), "{said}");
    assert!(said.contains("mirror = S-EPT = PAMT"), "{said}");
    assert!(said.contains("could see and change what the guest held"), "{said}");
}

#[test]
fn every_vcpu_is_a_thread_and_the_end_of_the_td_is_told() {
    let td = Debugged::start("gdb-threads", &["hello-td", "--vcpus", "3"]);
    let mut gdb = td.connect();
    assert!(gdb.ask("?").starts_with("T05"));
    let threads = gdb.ask("qfThreadInfo");
    assert_eq!(threads.trim_start_matches('m').split(',').count(), 3, "{threads}");
    // Steps of one leave the others where they are.
    assert_eq!(gdb.ask("Hg3"), "OK");
    let third = gdb.register(RIP);
    for _ in 0..4 {
        assert!(gdb.ask("vCont;s:1").starts_with("T05"));
    }
    assert_eq!(gdb.ask("Hg3"), "OK");
    assert_eq!(gdb.register(RIP), third);
    assert_eq!(gdb.ask("vCont;c"), "W00");
    drop(gdb);
    td.ends_with(0);
}

#[test]
fn a_client_that_goes_away_or_talks_nonsense_leaves_a_td_that_runs() {
    for nonsense in [&b""[..], b"$garbage#00", b"$m#6d$m,,#c5$vCont;s:99#00", b"\x03\x03\xff\xff$Z0"] {
        let td = Debugged::start("gdb-gone", &["hello-td", "--deterministic", "1"]);
        let mut gdb = td.connect();
        gdb.raw(nonsense);
        drop(gdb);
        td.ends_with(0);
    }
}

#[test]
fn a_client_that_kills_ends_the_td() {
    let td = Debugged::start("gdb-kill", &["hello-td"]);
    let mut gdb = td.connect();
    gdb.send("k");
    drop(gdb);
    td.ends_with(3);
}

#[test]
fn a_triple_fault_is_shown_before_the_td_dies_of_it() {
    let td = Debugged::start("gdb-triple", &["fault-td", "--command", "triple-fault"]);
    let mut gdb = td.connect();
    let stop = gdb.ask("vCont;c");
    assert!(stop.starts_with("T0b"), "SIGSEGV: {stop}");
    let rip = gdb.register(RIP);
    assert_eq!(gdb.memory(rip, 2), [0x0F, 0x0B], "the UD2 that nobody handles");
    assert!(gdb.ask("vCont;c").starts_with('X'), "it dies by a signal");
    drop(gdb);
    td.ends_with(3);
}

#[test]
fn exits_and_seamcalls_stop_a_td_where_they_are_caught_and_say_which_it_was() {
    let td = Debugged::start("gdb-catch", &["hello-td"]);
    let mut gdb = td.connect();
    assert!(gdb.ask("?").starts_with("T05"));
    assert_eq!(gdb.monitor("why"), "nothing has stopped it yet\n");
    assert_eq!(gdb.monitor("catch exit ept violation"), "caught: exits: EPT violation; SEAMCALLs: none\n");
    assert!(gdb.ask("vCont;c").starts_with("T05"));
    assert_eq!(gdb.monitor("why"), "vCPU 0 left its guest: EPT violation\n");
    let faulted = gdb.register(RIP);
    // The step is the instruction that left the guest.
    assert!(gdb.ask("vCont;s:1").starts_with("T05"));
    assert_ne!(gdb.register(RIP), faulted);

    assert_eq!(gdb.monitor("catch nothing"), "caught: exits: none; SEAMCALLs: none\n");
    let caught = gdb.monitor("catch seamcall tdh.mem.page.aug");
    assert_eq!(caught, "caught: exits: none; SEAMCALLs: TDH.MEM.PAGE.AUG\n");
    assert!(gdb.ask("vCont;c").starts_with("T05"));
    assert_eq!(gdb.monitor("why"), "the host called the module on vCPU 0: TDH.MEM.PAGE.AUG\n");
    gdb.monitor("catch nothing");

    gdb.monitor("catch exits");
    let mut reasons = std::collections::BTreeSet::new();
    for _ in 0..40 {
        assert!(gdb.ask("vCont;c").starts_with("T05"));
        reasons.insert(gdb.monitor("why"));
    }
    assert!(reasons.iter().all(|why| why.starts_with("vCPU 0 left its guest: ")), "{reasons:?}");
    assert!(
        reasons.iter().any(|why| why.contains("TDCALL"))
            && !reasons.iter().any(|why| why.contains("interrupt"))
    );
    for nonsense in ["catch", "catch exit nowhere", "catch seamcall TDH.NO.SUCH", "catch all"] {
        let said = gdb.monitor(nonsense);
        assert!(said.contains("exits: all") || said.starts_with("neither"), "{said}");
    }
    assert!(gdb.monitor("help").contains("monitor catch"));
    // Whoever goes takes what he caught with him.
    assert_eq!(gdb.ask("D"), "OK");
    drop(gdb);
    td.ends_with(0);
}

#[test]
fn a_host_stands_in_front_of_a_seamcall_that_is_caught() {
    let server = Debugged::of("server", "gdb-catch-server", &["--host-image"]);
    let mut gdb = server.connect();
    assert!(gdb.ask("?").starts_with("T05"));
    gdb.monitor("catch seamcall TDH.SYS.INIT");
    assert!(gdb.ask("vCont;c").starts_with("T05"));
    assert_eq!(gdb.monitor("why"), "the host called the module on CPU 0: TDH.SYS.INIT\n");
    let call = gdb.register(RIP);
    assert_eq!(gdb.memory(call, 4), [0x66, 0x0F, 0x01, 0xCF], "SEAMCALL");
    assert_eq!(gdb.register(0) & 0xffff, 33, "the leaf in RAX");
    assert!(gdb.ask("vCont;s:1").starts_with("T05"));
    assert_eq!(gdb.register(RIP), call + 4, "it was called once");
    assert_eq!(gdb.register(0), 0, "and succeeded");
    gdb.monitor("catch nothing");
    assert_eq!(gdb.ask("vCont;c"), "W00");
    drop(gdb);
    server.ends_with(0);
}

#[test]
fn an_endpoint_that_others_reach_is_refused() {
    let error = tdvisor(&["run", "--gdb", "0.0.0.0:0"]).ends_with(2).stderr();
    assert!(error.contains("no authentication"), "{error}");
    let error = tdvisor(&["run", "--gdb", "127.0.0.1:0", "--deterministic", "1", "--vcpus", "2"]);
    assert!(error.ends_with(2).stderr().contains("keeps its turn"));
    let server = ["server", "--host-image", "--gdb", "127.0.0.1:0"];
    let error = tdvisor(&[&server[..], &["--deterministic", "1", "--cpus", "2"]].concat());
    assert!(error.ends_with(2).stderr().contains("keeps its turn"));
    tdvisor(&[&server[..], &["--boots", "2"]].concat()).ends_with(2);
}

#[test]
fn the_host_of_a_server_is_debugged_and_its_processors_are_threads() {
    let server = Debugged::of("server", "gdb-server", &["--host-image", "--cpus", "2"]);
    let mut gdb = server.connect();
    assert!(gdb.ask("?").starts_with("T05"), "the server stands");
    let threads = gdb.ask("qfThreadInfo");
    assert_eq!(threads.trim_start_matches('m').split(',').count(), 2, "{threads}");
    let entry = gdb.register(RIP);
    for _ in 0..3 {
        assert!(gdb.ask("vCont;s:1").starts_with("T05"), "a step");
    }
    let third = gdb.register(RIP);
    assert_ne!(third, entry);
    let code = gdb.memory(third, 16);
    assert!(code.len() == 16 && code != [0; 16], "the host's code");
    assert!(gdb.memory(0x7e00_0000, 8).is_empty(), "the TDX module's own memory");
    gdb.send("k");
    drop(gdb);
    server.ends_with(3);

    let server = Debugged::of("server", "gdb-server-point", &["--host-image"]);
    let mut gdb = server.connect();
    assert!(gdb.ask("?").starts_with("T05"));
    assert_eq!(gdb.register(RIP), entry);
    assert_eq!(gdb.ask(&format!("Z0,{third:x},1")), "OK");
    let stop = gdb.ask("vCont;c");
    assert!(stop.starts_with("T05") && stop.contains("swbreak"), "{stop}");
    assert_eq!(gdb.register(RIP), third);
    assert_eq!(gdb.memory(third, 16), code, "no byte of the code is another with a breakpoint on it");
    assert_eq!(gdb.ask(&format!("z0,{third:x},1")), "OK");
    assert_eq!(gdb.ask("vCont;c"), "W00", "it runs its TD and powers off");
    drop(gdb);
    server.ends_with(0);
}

/// drgn itself, of which nobody here wrote a line, opens what `--dump` left of a distribution's kernel.
#[test]
#[ignore = "needs tools/guests/linux/distribution.sh and drgn, which scripts/nightly brings"]
fn nightly_drgn_reads_a_dump_through_the_notes_and_page_tables_of_the_kernel_in_it() {
    let kernel = linux::find_distribution_kernel().unwrap_or_else(|missing| panic!("{missing}"));
    let initrd = kernel.with_file_name("initrd").display().to_string();
    let dump = Folder::new("drgn").path("dump");
    let kernel = kernel.display().to_string();
    let args = ["run", "--kernel", &kernel, "--initrd", &initrd, "--inspectable", "--dump", &dump];
    tdvisor(&[&args[..], &["--timeout", "1800"]].concat()).ends_with(0);
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/drgn/bin/python3");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/read_dump.py");
    let output = Command::new(python).args([script, &dump]).output().expect("drgn's Python runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let release = said.lines().find_map(|line| line.strip_prefix("release OSRELEASE=")).expect("a release");
    assert!(said.contains(&format!("banner Linux version {release}")), "{said}");
}

/// gdb itself knows YMM registers by the description that it is sent, and puts them together from their halves.
#[test]
#[ignore = "needs gdb"]
fn nightly_gdb_shows_and_changes_whole_ymm_registers() {
    let td = Debugged::start("gdb-ymm", &["hello-td"]);
    td.wait_for_socket();
    let target = format!("target remote {}", td.socket);
    let script = [
        "set pagination off",
        "set architecture i386:x86-64",
        &target,
        "stepi",
        "print $ymm3.v4_int64",
        "set $ymm3.v4_int64[0] = 11",
        "set $ymm3.v4_int64[3] = 44",
        "print $ymm3.v4_int64",
        "print $xmm3.v2_int64",
        "set $ymm3.v4_int64[0] = 0",
        "set $ymm3.v4_int64[3] = 0",
        "detach",
    ];
    let said = gdb(&[], &script);
    for wanted in ["$1 = {0, 0, 0, 0}", "$2 = {11, 0, 0, 44}", "$3 = {11, 0}", "detached"] {
        assert!(said.contains(wanted), "'{wanted}' is not in:\n{said}");
    }
    td.ends_with(0);
}

/// What gdb says to a script, beside files that it is started with.
fn gdb(files: &[&str], script: &[&str]) -> String {
    let mut gdb = Command::new("gdb");
    gdb.args(["-batch", "-nx"]).args(files);
    for line in script {
        gdb.args(["-ex", line]);
    }
    let output = gdb.output().expect("gdb runs");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// gdb itself, on a Linux TD, by symbol.
#[test]
#[ignore = "needs the Linux test guest, and gdb"]
fn nightly_gdb_breaks_at_start_kernel_by_symbol_steps_reads_memory_and_detaches() {
    let file = |name| linux::file(name).display().to_string();
    let (kernel, initrd, symbols) = (file("bzImage"), file("initrd"), file("vmlinux"));
    let options = ["--kernel", &kernel, "--initrd", &initrd, "--cmdline", "console=ttyS0 panic=-1 nokaslr"];
    let td = Debugged::start("gdb-linux", &options);
    td.wait_for_socket();
    let script = [
        "set pagination off",
        &format!("target remote {}", td.socket),
        "hbreak start_kernel",
        "continue",
        "info threads",
        "stepi",
        "stepi",
        "x/4i $pc",
        "print (char[13])linux_banner",
        "info registers rip cr3 efer",
        "monitor registers",
        "delete",
        "detach",
    ];
    let said = gdb(&[&symbols], &script);
    for wanted in ["Breakpoint 1, ", "start_kernel", "Linux version", "lstar", "detached"] {
        assert!(said.contains(wanted), "'{wanted}' is not in:\n{said}");
    }
    td.ends_with(0);
}
