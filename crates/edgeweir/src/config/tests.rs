#![allow(clippy::unwrap_used)]
use super::*;

fn load(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edgeweir.toml");
    std::fs::write(&path, file).unwrap();
    let environment = environment.iter().map(|(k, v)| (OsString::from(k), OsString::from(v)));
    let flags = flags.iter().map(|(k, v)| Setting::new(k, v, "--set")).collect();
    Config::load(Config::default(), Some(&path), environment, flags)
        .map_err(|e| e.to_string().replace(&path.display().to_string(), "FILE"))
}

#[test]
fn a_file_then_the_environment_then_flags() {
    let file = "zone = \"cdn.example.com\"\nregions = [\"eu\"]\n[listen]\nhttp = \"127.0.0.1:1\"\n\
                https = \"\"\n[cache]\nmemory = \"1GiB\"\ndisk = 0\n";
    let config = load(
        file,
        &[
            ("EDGEWEIR_LISTEN__HTTP", "127.0.0.1:2"),
            ("EDGEWEIR_LISTEN__API", "127.0.0.1:3"),
            ("EDGEWEIR_REGIONS", "us, eu"),
            ("EDGEWEIR_KEYS__POOL", "0"),
            ("EDGEWEIR_CONFIG", "ignored"),
            ("EDGEWEIR_TEST_TOOLS", "ignored"),
            ("PATH", "ignored"),
        ],
        &[("listen.api", "127.0.0.1:4"), ("origins.allow_private", "true")],
    )
    .unwrap();
    assert_eq!(config.zone.as_str(), "cdn.example.com");
    assert_eq!(config.listen.http.to_string(), "127.0.0.1:2");
    assert_eq!(config.listen.api.to_string(), "127.0.0.1:4");
    assert_eq!(config.listen.https, Address(None));
    assert_eq!(config.regions, ["us", "eu"]);
    assert_eq!((config.cache.memory, config.cache.disk), (Size(1 << 30), Size(0)));
    assert_eq!((config.keys.pool, config.origins.allow_private), (0, true));
    assert_eq!(config.edge_target(), "edge.cdn.example.com");
}

#[test]
fn every_mistake_is_named() {
    for (file, environment, wanted) in [
        ("zon = \"a.b\"", None, "FILE: unknown key zon; did you mean zone?"),
        (
            "[listen]\nhtpp = \"\"",
            None,
            "FILE: unknown key listen.htpp; did you mean listen.http?",
        ),
        ("listen = 1", None, "FILE: listen is a section"),
        ("zone = ", None, "FILE, line 1, column 8: "),
        ("[store]\nurl = \"x", None, "FILE, line 2, column 9: "),
        (
            "[store]\nurl = \"postgres://u@h/d\"",
            None,
            "PostgreSQL is not supported yet",
        ),
        (
            "[listen]\nadmin = \"[::]:8091\"",
            None,
            "listen.admin is not a loopback address",
        ),
        ("zone = \"-\"", None, "zone"),
        (
            "[listen]\nhttp = \"localhost\"",
            None,
            "must be an IP address and a port",
        ),
        ("[cache]\nmemory = \"1 parsec\"", None, "must be a number of bytes"),
        ("[cache]\nmemory = -1", None, "must not be negative"),
        ("[cache]\nmemory = \"1KiB\"", None, "cache.memory must be at least 1MiB"),
        (
            "[cache]\ndisk = \"1MiB\"",
            None,
            "cache.disk must be 0, or at least 16MiB",
        ),
        ("regions = []", None, "regions must be one or more"),
        ("regions = [\"EU\"]", None, "regions must be one or more"),
        (
            "[http]\nmode = \"off\"",
            None,
            "unknown variant `off`, expected `serve` or `redirect`",
        ),
        ("[keys]\npool = 65", None, "keys.pool must be at most 64"),
        ("[keys]\npool = \"many\"", None, "invalid type"),
        ("[log]\nfilter = \"a=b=c\"", None, "log.filter must be a log level"),
        ("[limits]\nfailed_attempts_per_minute = 0", None, "must be at least 1"),
        (
            "[limits]\nidle_seconds = 0",
            None,
            "limits.idle_seconds must be 1 to 3600",
        ),
        (
            "[limits]\nidle_seconds = 3601",
            None,
            "limits.idle_seconds must be 1 to 3600",
        ),
        ("[limits]\nidle_seconds = 1.5", None, "invalid type"),
        ("[dns]\ntarget = \"no name\"", None, "dns.target must be a domain name"),
        (
            "[acme]\ndirectory = \"http://ca\"",
            None,
            "acme.directory must be the https:// URL",
        ),
        (
            "[acme]\neab_key_id = \"k\"",
            None,
            "acme.eab_hmac_key and acme.eab_key_id must be given together",
        ),
        (
            "[acme]\neab_key_id = \"k\"\neab_hmac_key = \"s3cr3t!\"",
            None,
            "the key in base64url as the CA shows it",
        ),
        ("[acme]\nchallenge = \"dns-01\"", None, "unknown variant `dns-01`"),
        (
            "[listen]\napi = \"0.0.0.0:1\"",
            None,
            "listen.api is not a loopback address",
        ),
        (
            "",
            Some(("EDGEWEIR_LISTN__HTTP", "")),
            "EDGEWEIR_LISTN__HTTP: unknown key listn.http; did you mean listen?",
        ),
        (
            "",
            Some(("EDGEWEIR_LISTEN", "")),
            "EDGEWEIR_LISTEN: listen is a section",
        ),
        (
            "",
            Some(("EDGEWEIR_KEYS__POOL", "x")),
            "EDGEWEIR_KEYS__POOL: keys.pool cannot be \"x\"",
        ),
    ] {
        let error = load(file, environment.as_slice(), &[]).unwrap_err();
        assert!(error.contains(wanted), "{file:?} {environment:?}: {error}");
    }
}

#[test]
fn a_public_api_address_needs_tls() {
    for (extra, allowed) in [("tls = true", true), ("behind_tls_proxy = true", true), ("", false)] {
        let file = format!("[listen]\napi = \"0.0.0.0:8090\"\n[api]\n{extra}");
        assert_eq!(load(&file, &[], &[]).is_ok(), allowed, "{extra}");
    }
}

#[test]
fn what_is_printed_reads_back_and_holds_no_password() {
    let mut config = Config::default();
    assert_eq!(
        Config::load(Config::default(), None, std::iter::empty(), Vec::new())
            .unwrap()
            .to_toml(),
        config.to_toml()
    );
    config.store.url = "sqlite:/x?Password=s3cr3t&y=1".to_owned();
    let text = config.to_toml();
    assert!(text.contains("sqlite:/x?Password=***&y=1"), "{text}");
    let acme = "[acme]\neab_key_id = \"k\"\neab_hmac_key = \"c2VjcmV0\"";
    let shown = load(acme, &[], &[]).unwrap().to_toml();
    assert!(shown.contains("eab_hmac_key = \"***\""), "{shown}");
    let back = load(&text, &[], &[]).unwrap();
    assert_eq!(back.to_toml(), text);
    for (url, shown) in [
        (
            "postgres://edge:s3cr3t@db:5432/edgeweir?x=1",
            "postgres://edge:***@db:5432/edgeweir?x=1",
        ),
        (
            "postgres://edge@db/edgeweir?sslpassword=s3cr3t&password=s3cr3t",
            "postgres://edge:***@db/edgeweir?sslpassword=***&password=***",
        ),
        ("postgres:///d?user=u", "postgres:///d?user=u"),
        ("sqlite", "sqlite"),
    ] {
        assert_eq!(masked(url), shown);
    }
}

#[test]
fn a_mistake_in_a_line_does_not_show_the_line() {
    for file in ["[store]\nurl = \"postgres://u:s3cr3t@h\n", "[store]\nurl = s3cr3t"] {
        let error = load(file, &[], &[]).unwrap_err();
        assert!(error.contains("line 2") && !error.contains("s3cr3t"), "{error}");
    }
}

#[test]
fn what_is_not_utf8_is_an_error_where_it_is_ours() {
    use std::os::unix::ffi::OsStringExt;
    let bytes = || OsString::from_vec(vec![b'a', 0xff]);
    let load = |name: OsString| Config::load(Config::default(), None, [(name, bytes())].into_iter(), Vec::new());
    let ours = load("EDGEWEIR_ZONE".into()).unwrap_err();
    assert_eq!(ours.to_string(), "EDGEWEIR_ZONE must be UTF-8");
    assert!(load("OTHER".into()).is_ok() && load(bytes()).is_ok());
    assert!(Setting::data_dir(Path::new(&bytes()), "--dir").is_err());
}
