//! `user_agent`: what browsers say of themselves, by a short table of rules. It knows families, not models: what no rule
//! knows is `Other`. Each rule is a search for a word, so a text is read a fixed number of times.

/// What a `User-Agent` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent<'t> {
    pub browser: &'static str,
    pub version: Option<&'t str>,
    pub os: &'static str,
    pub device: &'static str,
}

/// `(word, family)`, the version behind the word. Those that also name Chrome or Safari stand before these.
const BROWSERS: [(&str, &str); 32] = [
    ("Googlebot/", "Googlebot"),
    ("bingbot/", "Bingbot"),
    ("YandexBot/", "YandexBot"),
    ("Baiduspider/", "Baiduspider"),
    ("DuckDuckBot/", "DuckDuckBot"),
    ("Applebot/", "Applebot"),
    ("GPTBot/", "GPTBot"),
    ("AhrefsBot/", "AhrefsBot"),
    ("facebookexternalhit/", "Facebook"),
    ("MicroMessenger/", "WeChat"),
    ("Edg/", "Edge"),
    ("EdgA/", "Edge"),
    ("EdgiOS/", "Edge"),
    ("Edge/", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("UCBrowser/", "UC Browser"),
    ("YaBrowser/", "Yandex Browser"),
    ("Vivaldi/", "Vivaldi"),
    ("FxiOS/", "Firefox"),
    ("Firefox/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("HeadlessChrome/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("MSIE ", "Internet Explorer"),
    ("curl/", "curl"),
    ("Wget/", "Wget"),
    ("python-requests/", "Python Requests"),
    ("okhttp/", "OkHttp"),
    ("Go-http-client/", "Go"),
    ("Java/", "Java"),
    ("PostmanRuntime/", "Postman"),
];

const SYSTEMS: [(&str, &str); 11] = [
    ("Windows", "Windows"),
    ("iPhone", "iOS"),
    ("iPad", "iOS"),
    ("iPod", "iOS"),
    ("Android", "Android"),
    ("CrOS", "ChromeOS"),
    ("Mac OS X", "macOS"),
    ("Macintosh", "macOS"),
    ("Linux", "Linux"),
    ("FreeBSD", "FreeBSD"),
    ("OpenBSD", "OpenBSD"),
];

pub fn parse(text: &str) -> Agent<'_> {
    let named = BROWSERS.iter().find_map(|(word, family)| Some((*family, version(after(text, word)?))));
    let safari = || Some(("Safari", version(after(text, "Version/")?))).filter(|_| text.contains("Safari/"));
    let trident =
        || text.contains("Trident/").then(|| ("Internet Explorer", after(text, "rv:").and_then(version)));
    let (browser, version) = named.or_else(safari).or_else(trident).unwrap_or(("Other", None));
    let os = SYSTEMS.iter().find(|(word, _)| text.contains(word)).map_or("Other", |(_, os)| os);
    Agent { browser, version, os, device: device(text, browser, os) }
}

fn after<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    text.find(word).map(|at| &text[at + word.len()..])
}

/// Digits and points at the front.
fn version(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    Some(text[..end].trim_end_matches('.')).filter(|version| !version.is_empty())
}

fn device(text: &str, browser: &str, os: &str) -> &'static str {
    let lower = text.to_ascii_lowercase();
    let bot = ["bot", "spider", "crawl", "slurp", "externalhit"].iter().any(|word| lower.contains(word));
    let tool = matches!(browser, "curl" | "Wget" | "Python Requests" | "OkHttp" | "Go" | "Java" | "Postman");
    let mobile = text.contains("Mobile");
    match os {
        _ if bot => "bot",
        _ if tool => "tool",
        _ if text.contains("iPad") || text.contains("Tablet") || os == "Android" && !mobile => "tablet",
        "iOS" | "Android" => "phone",
        "Other" if mobile => "phone",
        "Other" => "other",
        _ => "desktop",
    }
}
