//! `tdvisor collateral` and `verify --fetch` from outside.

use crate::background::Background;
use crate::cli::{Folder, tdvisor};

/// A quote of now, with what verifies it.
fn issue(folder: &Folder) -> [String; 3] {
    let [quote, collateral, root] =
        ["quote.bin", "collateral.json", "root.pem"].map(|name| folder.path(name));
    tdvisor(&["quote", "issue", "--out", &quote, "--collateral", &collateral, "--root", &root]).ends_with(0);
    [quote, collateral, root]
}

#[test]
fn collateral_is_served_fetched_kept_and_verified_with() {
    let folder = Folder::new("collateral");
    let [quote, collateral, root] = issue(&folder);
    let mut server = Background::start(&["collateral", "serve", &collateral, "--listen", "127.0.0.1:0"]);
    let pccs = server.address("http://");
    let [fetched, cache] = ["fetched.json", "cache"].map(|name| folder.path(name));
    let source = ["--pccs", &pccs, "--cache", &cache, "--test-root", &root];
    tdvisor(&[&["collateral", "fetch", &quote, "--out", &fetched], &source[..]].concat()).ends_with(0);
    tdvisor(&["verify", &quote, "--collateral", &fetched, "--test-root", &root]).ends_with(0);
    tdvisor(&[&["verify", &quote, "--fetch"], &source[..]].concat()).ends_with(0);
    drop(server);
    // Nobody is there any more: the cache has it all, as a source and as a folder, for us and for the next PCCS.
    tdvisor(&[&["verify", &quote, "--fetch", "--offline"], &source[..]].concat()).ends_with(0);
    tdvisor(&["verify", &quote, "--collateral", &cache, "--test-root", &root]).ends_with(0);
    let mut second = Background::start(&["collateral", "serve", &cache, "--listen", "127.0.0.1:0"]);
    let pccs = second.address("http://");
    tdvisor(&["verify", &quote, "--fetch", "--pccs", &pccs, "--test-root", &root]).ends_with(0);
}

#[test]
fn what_cannot_be_had_is_named_with_its_address_in_one_line() {
    let folder = Folder::new("collateral-missing");
    let [quote, collateral, root] = issue(&folder);
    let cache = folder.path("cache");
    let offline = ["verify", &quote, "--fetch", "--cache", &cache, "--offline", "--test-root", &root];
    let said = tdvisor(&offline).ends_with(2).one_line_of_error();
    for word in
        ["TCB info from https://api.trustedservices.intel.com/tdx", "QE identity", "PCK CRL", "root CRL"]
    {
        assert!(said.contains(word), "{said}");
    }
    // A root that has not signed what comes is a verdict of `verify`, and no collateral for `fetch`.
    let mut server = Background::start(&["collateral", "serve", &collateral, "--listen", "127.0.0.1:0"]);
    let pccs = server.address("http://");
    let verdict = tdvisor(&["verify", &quote, "--fetch", "--pccs", &pccs, "--json"]).ends_with(1).json();
    assert_eq!(verdict["quote"], "invalid");
    tdvisor(&["collateral", "fetch", &quote, "--pccs", &pccs]).ends_with(2);
    assert!(server.stop().contains("another root than Intel's"));
}

#[test]
fn options_of_fetching_without_fetching_are_refused() {
    let folder = Folder::new("collateral-options");
    let [quote, collateral, _] = issue(&folder);
    let verify = ["verify", &quote, "--collateral", &collateral];
    for option in [["--pccs", "http://127.0.0.1:9"], ["--update", "early"], ["--deadline", "3"]] {
        let said = tdvisor(&[&verify[..], &option].concat()).ends_with(2).one_line_of_error();
        assert!(said.contains(option[0]) && said.contains("--fetch"), "{said}");
    }
    let nothing = Folder::new("collateral-nothing");
    let said = tdvisor(&["collateral", "serve", &nothing.path(".")]).ends_with(2).one_line_of_error();
    assert!(said.contains("no TCB info"), "{said}");
}

#[test]
fn early_and_standard_sets_are_judged_in_one_run_and_each_must_accept() {
    let folder = Folder::new("collateral-sets");
    let [quote, collateral, root] = issue(&folder);
    // The same platform by a newer set, in which it is out of date.
    let newer = folder.path("newer.json");
    let unused = folder.path("unused");
    let call = ["quote", "issue", "--out", &unused, "--collateral", &newer, "--root", &root];
    tdvisor(&[&call[..], &["--status", "OutOfDate", "--evaluation-number", "18"]].concat()).ends_with(0);
    let serve = ["collateral", "serve", &collateral, &newer, "--listen", "127.0.0.1:0"];
    let mut server = Background::start(&serve);
    let pccs = server.address("http://");
    let verify = ["verify", &quote, "--fetch", "--pccs", &pccs, "--test-root", &root, "--json", "--update"];
    for (update, status, early, standard) in
        [("standard", 0, "", "UpToDate"), ("early", 1, "OutOfDate", ""), ("both", 1, "OutOfDate", "UpToDate")]
    {
        let answer = tdvisor(&[&verify[..], &[update]].concat()).ends_with(status).json();
        if update == "both" {
            assert_eq!(answer["sets"]["early"]["tcb"], early);
            assert_eq!(answer["sets"]["standard"]["tcb"], standard);
        } else {
            assert_eq!(answer["tcb"], format!("{early}{standard}"));
        }
    }
    tdvisor(&["collateral", "fetch", &quote, "--pccs", &pccs, "--update", "both"]).ends_with(2);
}
