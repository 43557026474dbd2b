//! `run --report`: what the page knows of a run, and, in a browser, that it leads to the cause of a TD's death.

use std::path::Path;
use std::process::Command;

use crate::cli::{Folder, tdvisor};
use serde_json::Value;

/// The data in a page.
fn data(page: &str) -> Value {
    let (_, rest) =
        page.split_once(r#"<script type="application/json" id="data">"#).expect("the page has data");
    let (data, _) = rest.split_once("</script>").expect("the data has an end");
    serde_json::from_str(data).expect("the data is JSON")
}

/// Runs a guest with a page, and gives the page.
fn page_of(folder: &Folder, args: &[&str], status: i32) -> String {
    let path = folder.path("run.html");
    tdvisor(&[&["run", "--report", &path], args].concat()).ends_with(status);
    std::fs::read_to_string(path).expect("the page is text")
}

/// What a browser makes of a page, at a permalink.
fn browser(page: &Path, permalink: &str, options: &[&str]) -> Vec<u8> {
    let output = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--virtual-time-budget=5000",
        ])
        .args(options)
        .arg(format!("file://{}#{permalink}", page.display()))
        .output()
        .expect("chromium runs");
    output.stdout
}

/// The elements of a page as a browser has them.
fn elements(page: &Path, permalink: &str) -> String {
    String::from_utf8_lossy(&browser(page, permalink, &["--dump-dom"])).into_owned()
}

/// A page of a run in which mirror, Secure EPT and PAMT of one leaf do not agree, and others are pending, blocked and shared: no
/// host that is right leaves such a one, so a page of a good run is changed. The leaf is given, too.
fn page_with_a_difference(page: &str) -> (String, u64) {
    let mut data = data(page);
    let entries = data["entries"].as_array_mut().expect("entries");
    let is_leaf = |entry: &Value| entry["sept"]["kind"] == "leaf" && entry["level"] == 1;
    let mut leaves: Vec<&mut Value> = entries.iter_mut().filter(|entry| is_leaf(entry)).collect();
    let [first, second, third, ..] = &mut leaves[..] else { panic!("large pages") };
    let gpa = first["gpa"].as_u64().expect("an address");
    // The module has another page there, which the PAMT says is another TD's.
    (first["sept"]["page"], first["sept"]["raw"]) = ("0x40c00000".into(), "0x8000000040c000f7".into());
    (first["pamt"]["page"], first["pamt"]["owner"]) = ("0x40c00000".into(), "0x40005000".into());
    second["sept"]["state"] = "PENDING".into();
    third["sept"]["state"] = "BLOCKED".into();
    let (before, rest) = page.split_once(r#"id="data">"#).expect("the page has data");
    let (_, after) = rest.split_once("</script>").expect("the data has an end");
    (format!(r#"{before}id="data">{data}</script>{after}"#), gpa)
}

#[test]
fn mirror_secure_ept_and_pamt_stand_beside_each_other_and_agree() {
    let data = data(&page_of(&Folder::new("report-hello"), &["hello-td", "--vcpus", "2"], 0));
    assert_eq!(data["schema"], 1);
    assert_eq!(data["ending"]["died"], false);
    assert_eq!(data["vcpus"].as_array().expect("vCPUs").len(), 2);
    let entries = data["entries"].as_array().expect("entries");
    let private: Vec<_> = entries.iter().filter(|entry| entry["shared"] == false).collect();
    assert!(private.iter().any(|entry| entry["mirror"]["kind"] == "leaf" && entry["level"] == 1));
    for entry in &private {
        assert_eq!(entry["mirror"]["kind"], entry["sept"]["kind"], "{entry}");
        assert_eq!(entry["mirror"]["page"], entry["sept"]["page"], "{entry}");
        assert_eq!(entry["pamt"]["owner"], data["tdr"], "{entry}");
        let is_leaf = entry["sept"]["kind"] == "leaf";
        assert_eq!(entry["pamt"]["type"], if is_leaf { "REG" } else { "EPT" }, "{entry}");
    }
    let accepts = |call: &Value| call["leaf"] == "TDG.MEM.PAGE.ACCEPT" && call["ok"] == true;
    assert!(data["calls"].as_array().expect("calls").iter().any(accepts));
}

#[test]
fn a_page_remembers_who_added_it_who_accepted_it_and_what_came_of_it() {
    let data = data(&page_of(&Folder::new("report-unaccepted"), &["fault-td", "--command", "unaccepted"], 3));
    assert_eq!(data["ending"]["died"], true);
    let gpa = data["ending"]["gpa"].as_u64().expect("the TD died of an address");
    let covers = |row: &&Value| {
        let first = row["gpa"].as_u64()?;
        let bytes = 4096 << (9 * row["level"].as_u64()?);
        Some((first..first + bytes).contains(&gpa))
    };
    let entries = data["entries"].as_array().expect("entries");
    let leaf = |entry: &&Value| entry["shared"] == false && entry["sept"]["kind"] == "leaf";
    let found = entries.iter().filter(leaf).find(|entry| covers(entry) == Some(true));
    assert_eq!(found.expect("the page is mapped")["sept"]["state"], "PENDING");
    let calls: Vec<_> = data["calls"].as_array().expect("calls").iter().collect();
    let about: Vec<_> = calls.iter().filter(|call| covers(call) == Some(true)).collect();
    assert!(about.iter().any(|call| call["leaf"] == "TDH.MEM.PAGE.AUG" && call["ok"] == true), "{about:?}");
    assert!(!about.iter().any(|call| call["guest"] == true), "nobody accepted it: {about:?}");
    assert!(
        about.iter().any(|call| call["exit"].as_str().is_some_and(|exit| exit.contains("EPT violation")))
    );
}

#[test]
fn the_time_line_has_a_lane_for_each_vcpu_with_stays_that_do_not_overlap() {
    let path = Folder::new("trace-events").path("events.json");
    tdvisor(&["run", "hello-td", "--vcpus", "2", "--trace-events", &path]).ends_with(0);
    let text = std::fs::read_to_string(path).expect("the events are text");
    let events: Value = serde_json::from_str(&text).expect("the events are JSON");
    let events = events["traceEvents"].as_array().expect("a list of events");
    let named = |name: &str| events.iter().any(|event| event["args"]["name"] == name);
    assert!(named("vCPU 0 (LP 1)") && named("vCPU 1 (LP 2)"));
    assert!(events.iter().any(|event| event["ph"] == "i" && event["name"] == "TDG.MEM.PAGE.ACCEPT"));
    for lane in [1, 2] {
        let mut stays: Vec<(f64, f64)> = events
            .iter()
            .filter(|event| event["cat"] == "guest" && event["tid"] == lane)
            .map(|event| (event["ts"].as_f64().expect("a time"), event["dur"].as_f64().expect("a length")))
            .collect();
        stays.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(stays.len() > 10, "lane {lane} has {} stays", stays.len());
        let overlap = stays.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0 + 0.001);
        assert_eq!(overlap, None, "lane {lane}");
    }
}

#[test]
fn a_page_that_cannot_be_written_is_named() {
    let folder = Folder::new("report-nowhere");
    let error =
        tdvisor(&["run", "--report", &folder.path("no/such/folder.html")]).ends_with(2).one_line_of_error();
    assert!(error.contains("folder.html"), "{error}");
    let one = folder.path("one");
    let error = tdvisor(&["run", "--report", &one, "--trace", &one]).ends_with(2).stderr();
    assert!(error.contains("--report") && error.contains("--trace"), "{error}");
}

/// From the page as it opens to the entry that says why, with a history that has no ACCEPT: two clicks.
#[test]
#[ignore = "needs chromium"]
fn nightly_a_browser_reaches_the_cause_of_a_death_in_at_most_four_clicks() {
    const MOST_CLICKS: usize = 4;
    let folder = Folder::new("report-walk");
    let page = page_of(&folder, &["fault-td", "--command", "unaccepted"], 3);
    let walk = ["#view-end .dead a", "#view-page .card + .card a"];
    assert!(walk.len() <= MOST_CLICKS);
    let seen = |clicks: &[&str]| {
        let script: String =
            clicks.iter().map(|at| format!("document.querySelector('{at}').click();")).collect();
        // A click changes the address; the page follows when the browser says so.
        let script = script.replace(".click();", ".click();await new Promise(go => setTimeout(go, 200));");
        let html =
            page.replace("</body>", &format!("<script>(async () => {{ {script} }})();</script></body>"));
        elements(Path::new(&folder.write("walk.html", html)), "")
    };
    let opened = seen(&[]);
    assert!(opened.contains("the TD died") && opened.contains("has not accepted"), "{opened}");
    let entry = seen(&walk[..1]);
    for word in
        ["mirror entry", "S-EPT entry", "PAMT entry", "PENDING", "TDH.MEM.PAGE.AUG", "SEPT_VE_DISABLE"]
    {
        assert!(entry.contains(word), "{word} is not shown:\n{entry}");
    }
    let call = seen(&walk);
    assert!(call.contains("Registers that pass between host and module"), "{call}");
}

#[test]
#[ignore = "needs chromium"]
fn nightly_a_browser_marks_what_differs_between_mirror_secure_ept_and_pamt_and_nothing_else() {
    let folder = Folder::new("report-difference");
    let page = page_of(&folder, &["hello-td"], 0);
    let (changed, gpa) = page_with_a_difference(&page);
    let rows = |page: &str| {
        let shown = elements(Path::new(&folder.write("page.html", page)), &format!("view=page&gpa={gpa:#x}"));
        (
            shown.matches(r#"class="differs""#).count(),
            shown.contains("<p>Mirror, Secure EPT and PAMT do not agree"),
        )
    };
    assert_eq!(rows(&page), (0, false));
    // The page in three columns, the owner in two.
    assert_eq!(rows(&changed), (5, true));
}

/// The pictures of the inspector's paper. TDVISOR_WRITE=1 puts them there.
#[test]
#[ignore = "needs chromium"]
fn nightly_each_view_of_the_inspector_is_drawn() {
    let folder = Folder::new("report-pictures");
    let hello = page_of(&folder, &["hello-td", "--vcpus", "2"], 0);
    let died = page_of(&folder, &["fault-td", "--command", "unaccepted"], 3);
    let gpa = data(&died)["ending"]["gpa"].as_u64().expect("the TD died of an address");
    let (differs, at) = page_with_a_difference(&hello);
    let dark = died.replace("<html ", r#"<html data-theme="dark" "#);
    let call = data(&hello)["calls"]
        .as_array()
        .expect("calls")
        .iter()
        .rfind(|call| call["exit"].is_string())
        .cloned();
    let call = call.expect("an exit")["n"].clone();
    for (name, page, permalink, size) in [
        ("end", &died, "view=end".to_owned(), "1200,640"),
        ("page", &died, format!("view=page&gpa={gpa:#x}"), "1200,900"),
        ("dark", &dark, format!("view=page&gpa={gpa:#x}"), "1200,640"),
        ("map", &hello, "view=map".to_owned(), "1200,720"),
        ("states", &differs, format!("view=map&base={:#x}&size=0x1800000", at & !0xff_ffff), "1200,720"),
        ("difference", &differs, format!("view=page&gpa={at:#x}"), "1200,640"),
        ("exits", &hello, format!("view=exits&n={call}"), "1200,460"),
        ("calls", &hello, "view=calls".to_owned(), "1200,640"),
    ] {
        let (html, png) = (folder.write("page.html", page), folder.path(&format!("{name}.png")));
        browser(
            Path::new(&html),
            &permalink,
            &[&format!("--window-size={size}"), &format!("--screenshot={png}")],
        );
        let drawn = std::fs::read(&png).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            drawn.starts_with(b"\x89PNG") && drawn.len() > 10_000,
            "{name} is empty: {} bytes",
            drawn.len()
        );
        if std::env::var_os("TDVISOR_WRITE").is_some() {
            let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../inspector/pictures");
            std::fs::write(pictures.join(format!("{name}.png")), drawn).expect("a picture");
        }
    }
}
