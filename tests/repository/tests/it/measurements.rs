//! The measurements of the built-in images are where users look for them. (That they are those of the images is a test
//! of `tools/guest-images`.)

use tdvisor_repository::read;

/// Name and MRTD of each built-in image.
fn written() -> Vec<(String, String)> {
    let text = read("tools/guest-images/MRTD.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').unwrap()).map(|(name, mrtd)| (name.into(), mrtd.into())).collect()
}

#[test]
fn the_changelog_names_the_measurement_of_each_image() {
    let changelog = read("CHANGELOG.md");
    let written = written();
    assert!(!written.is_empty());
    for (name, mrtd) in written {
        assert_eq!(mrtd.len(), 96, "{name}: SHA-384 in hexadecimal");
        let line = format!("`{}…` ({name})", &mrtd[..16]);
        assert!(changelog.contains(&line), "{name} has another MRTD: CHANGELOG.md needs {line}");
    }
}

#[test]
fn the_transcript_of_the_readme_shows_the_measurement_of_the_guest_that_runs() {
    let (_, mrtd) = written().into_iter().find(|(name, _)| name == "hello-td").unwrap();
    let readme = read("README.md");
    assert!(readme.contains(&format!("MRTD {mrtd}\n")), "README.md: the guest says MRTD {mrtd}");
    assert!(readme.contains(&format!("MRTD       {mrtd} matches the image")), "README.md: the summary");
}
