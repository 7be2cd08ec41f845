//! The manual is held against the code and against itself: each row of a table must be there, word for word, and each link
//! must lead somewhere, in the repository as well as in rustdoc.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[cfg(feature = "program")]
use corecast::Config;
use corecast::{CloseReason, DropReason, ErrorCode};
use pulldown_cmark::{BrokenLink, Event, LinkType, Options, Parser, Tag, TagEnd};

const README_LINES_MAX: usize = 250;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Fails with the whole table as it should be, ready to be pasted.
pub(crate) fn assert_table(page: &str, rows: &[String]) {
    let file = format!("src/guide/{page}.md");
    let table = rows.join("\n");
    let text = fs::read_to_string(root().join(&file)).unwrap();
    assert!(text.contains(&table), "{file} lacks this table, or a row of it:\n\n{table}\n");
}

#[test]
fn every_error_code_is_in_the_guide() {
    let mut rows = vec!["| error code | meaning |".to_owned(), "| --- | --- |".to_owned()];
    rows.extend(ErrorCode::ALL.map(|code| format!("| `{}` | {} |", code.name(), code.meaning())));
    assert_table("language", &rows);
}

#[test]
fn every_reason_is_in_the_guide() {
    let mut rows = vec!["| `GAP` reason | meaning |".to_owned(), "| --- | --- |".to_owned()];
    rows.extend(DropReason::ALL.map(|reason| format!("| `{reason}` | {} |", reason.meaning())));
    assert_table("language", &rows);
    let mut rows = vec!["| close reason | meaning |".to_owned(), "| --- | --- |".to_owned()];
    rows.extend(CloseReason::ALL.map(|reason| format!("| `{reason}` | {} |", reason.meaning())));
    assert_table("language", &rows);
}

/// The sample file, with every setting that has a default taken out of its comment.
#[cfg(feature = "program")]
#[test]
fn the_sample_config_lists_every_setting_at_its_default() {
    let sample = include_str!("../../deploy/corecast.toml");
    let mut settings = String::new();
    let mut optional = Vec::new();
    let mut lines = sample.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# (default: none)" {
            optional.push(lines.next().unwrap().trim_start_matches("# ").split(' ').next().unwrap());
        } else if let Some(setting) = line.strip_prefix("# ")
            && setting
                .split_once(" = ")
                .is_some_and(|(key, _)| key.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()))
        {
            settings.push_str(setting);
            settings.push('\n');
        }
    }
    assert_eq!(toml::from_str::<Config>(&settings).unwrap(), Config::default());
    let written: Vec<_> = toml::from_str::<toml::Table>(&settings).unwrap().keys().cloned().collect();
    let defaults: Vec<_> = toml::Table::try_from(Config::default()).unwrap().keys().cloned().collect();
    assert_eq!(written, defaults);
    assert_eq!(optional, ["shards", "cpus", "so_rcvbuf", "so_sndbuf", "control_token_file"]);
}

/// A Markdown file: what can be linked to in it, and what it links to.
struct Page {
    anchors: BTreeSet<String>,
    links: Vec<Link>,
}

struct Link {
    kind: LinkType,
    image: bool,
    target: String,
}

impl Page {
    fn parse(text: &str) -> Self {
        let (mut anchors, mut links, mut heading) = (BTreeSet::new(), Vec::new(), None::<String>);
        let undefined = |link: BrokenLink<'_>| {
            assert_ne!(link.link_type, LinkType::Reference, "[{}] is not defined", link.reference);
            None
        };
        for event in Parser::new_with_broken_link_callback(text, Options::ENABLE_TABLES, Some(undefined)) {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = anchor(&heading.take().unwrap());
                    assert!(anchors.insert(anchor.clone()), "two headings are #{anchor}");
                }
                Event::Text(text) | Event::Code(text) => heading.iter_mut().for_each(|heading| heading.push_str(&text)),
                Event::Start(Tag::Link { link_type, dest_url, .. }) => {
                    links.push(Link { kind: link_type, image: false, target: dest_url.into_string() });
                }
                Event::Start(Tag::Image { link_type, dest_url, .. }) => {
                    links.push(Link { kind: link_type, image: true, target: dest_url.into_string() });
                }
                _ => {}
            }
        }
        Self { anchors, links }
    }

    fn read(path: &Path) -> Self {
        Self::parse(&fs::read_to_string(path).unwrap())
    }
}

/// The anchor of a heading, as rustdoc and sites that show repositories make it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// The pages of the manual, by file name without `.md`.
fn pages() -> BTreeMap<String, PathBuf> {
    let files = fs::read_dir(root().join("src/guide")).unwrap().map(|entry| entry.unwrap().path());
    let pages = files.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path)).collect()
}

/// What is wrong with a link out of `file`, if anything.
fn dead(file: &Path, own: &Page, target: &str) -> Option<String> {
    if target.contains("://") {
        return None;
    }
    let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
    let linked = file.parent().unwrap().join(path);
    if !path.is_empty() && !linked.exists() {
        return Some(format!("{}: {target} leads to no file", file.display()));
    }
    let other;
    let page = match path {
        _ if fragment.is_empty() => return None,
        "" => own,
        _ => {
            other = Page::read(&linked);
            &other
        }
    };
    (!page.anchors.contains(fragment)).then(|| format!("{}: {target} leads to no heading", file.display()))
}

#[test]
fn the_readme_can_be_read_in_ten_minutes() {
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(
        lines <= README_LINES_MAX,
        "README.md has {lines} lines; what is more than {README_LINES_MAX} goes to src/guide/"
    );
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    let readmes = ["README.md", "deploy/README.md", "deploy/web/README.md"].map(|file| root().join(file));
    let mut found = 0;
    let mut wrong = Vec::new();
    for file in readmes.into_iter().chain(pages().into_values()) {
        let page = Page::read(&file);
        found += page.links.len();
        wrong.extend(page.links.iter().filter_map(|link| dead(&file, &page, &link.target)));
    }
    assert!(found > 20, "the links were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_readme_links_every_page() {
    let readme = Page::read(&root().join("README.md"));
    for page in pages().keys().filter(|page| *page != "README") {
        let target = format!("src/guide/{page}.md");
        assert!(readme.links.iter().any(|link| link.target == target), "README.md has no link to {target}");
    }
}

/// What the README repeats of the manual, it repeats word for word.
#[test]
fn every_row_of_the_readmes_tables_is_in_the_manual() {
    let manual: Vec<_> = pages().into_values().map(|path| fs::read_to_string(path).unwrap()).collect();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let rows = readme.lines().filter(|line| line.starts_with('|') && !line.contains("](src/guide/"));
    let lost: Vec<_> = rows.filter(|row| !manual.iter().any(|page| page.lines().any(|line| line == *row))).collect();
    assert!(lost.is_empty(), "no page of the manual has these rows of README.md:\n{}", lost.join("\n"));
}

/// In rustdoc a page lies elsewhere than in the repository, so each link between files is a reference, and
/// `rustdoc.links` says where it leads there.
#[test]
fn every_link_between_pages_works_in_rustdoc_too() {
    let text = fs::read_to_string(root().join("src/guide/rustdoc.links")).unwrap();
    let overrides: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: ")).collect();
    let mut used = BTreeSet::new();
    for file in pages().into_values() {
        let page = fs::read_to_string(&file).unwrap();
        let file = file.display();
        for link in Page::parse(&page).links {
            assert!(!link.image, "{file}: rustdoc has no file {} to show", link.target);
            assert!(
                link.kind == LinkType::Reference || link.target.starts_with('#') || link.target.contains("://"),
                "{file}: rustdoc does not find {}; write [text][label], and the label's target below",
                link.target
            );
        }
        for (label, target) in page.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: ")) {
            let wanted = match target.strip_prefix("../../") {
                Some(outside) => {
                    assert_eq!(label, outside, "{file}: the label of a file outside of the manual is its path");
                    "crate::guide#files-beside-the-crate".to_owned()
                }
                None => {
                    assert_eq!(label, target.replace(".md", ""), "{file}: the label of a page is its name");
                    format!("crate::guide::{label}")
                }
            };
            assert_eq!(overrides.get(label), Some(&wanted.as_str()), "{file}: [{label}] in src/guide/rustdoc.links");
            used.insert(label.to_owned());
        }
    }
    let unused: Vec<_> = overrides.keys().filter(|label| !used.contains(**label)).collect();
    assert!(unused.is_empty(), "src/guide/rustdoc.links has labels that no page uses: {unused:?}");
}

#[test]
fn every_page_is_a_module_of_the_guide() {
    let module = fs::read_to_string(root().join("src/guide/mod.rs")).unwrap();
    let list = module.split_once("pages! { ").unwrap().1.split_once(" }").unwrap().0;
    let listed: BTreeSet<_> = list.split_whitespace().map(str::to_owned).collect();
    let files: BTreeSet<_> = pages().into_keys().filter(|page| page != "README").collect();
    assert_eq!(listed, files);
}

#[test]
#[should_panic(expected = "[nowhere] is not defined")]
fn a_reference_without_a_definition_is_found() {
    Page::parse("See [there][nowhere].\n\n[somewhere]: settings.md\n");
}

#[test]
fn a_link_without_a_file_or_heading_is_found() {
    let file = root().join("src/guide/page.md");
    let page = Page::parse("# A page\n## What's *new*, and `code`\n");
    for (target, what) in [
        ("#whats-new-and-code", ""),
        ("settings.md", ""),
        ("settings.md#settings", ""),
        ("https://example.com/x", ""),
        ("#what-s-new", "leads to no heading"),
        ("setings.md", "leads to no file"),
        ("settings.md#nothing", "leads to no heading"),
        ("deploy/README.md", "leads to no file"),
    ] {
        let said = dead(&file, &page, target).unwrap_or_default();
        assert!(said.ends_with(what) && said.is_empty() == what.is_empty(), "{target}: {said}");
    }
}
