//! Whether a name leads here, and its CAA records let the CA issue, before the CA is asked to look.
//!
//! What the answers mean is a pure function, [`judge`], apart from asking. A CNAME chain must reach the edge's name, or
//! every address be the edge's own (for apex names, which cannot have a CNAME). CAA: RFC 8659.

use crate::lifecycle::{Verdict, wanted};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{RData, Record, RecordType},
};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// How many CNAMEs are followed.
const CHAIN: usize = 8;
const TIMEOUT: Duration = Duration::from_secs(2);

/// The CAA records found nearest above a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caa {
    /// The name that has them.
    pub at: String,
    /// The domains in its `issue` properties; an empty one is nobody's.
    pub issuers: Vec<String>,
    /// Whether a property that must be understood is not.
    pub unknown_critical: bool,
}

/// What the DNS said about a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// Where its CNAMEs lead, one after the other: lower-case, without the last dot.
    pub chain: Vec<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The CAA records that count for it.
    pub caa: Option<Caa>,
}

/// What the DNS should say.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// What a CNAME must lead to.
    pub target: String,
    /// The edge's own addresses.
    pub addresses: Vec<IpAddr>,
    /// The names that the CA goes by in CAA records (RFC 8555 §9.7.6); none when it does not say.
    pub issuers: Vec<String>,
}

/// What the answers mean.
pub fn judge(name: &str, answers: &Answers, want: &Wanted) -> Verdict {
    let leads_here = answers.chain.contains(&want.target);
    let own = !answers.addresses.is_empty() && answers.addresses.iter().all(|a| want.addresses.contains(a));
    if !leads_here && !own {
        return Verdict::NotYet(elsewhere(name, answers, want));
    }
    match &answers.caa {
        Some(caa) if !want.issuers.is_empty() && forbids(caa, &want.issuers) => {
            Verdict::NotYet(forbidden(name, caa, &want.issuers[0]))
        }
        _ => Verdict::Here,
    }
}

fn forbids(caa: &Caa, ours: &[String]) -> bool {
    caa.unknown_critical || (!caa.issuers.is_empty() && !caa.issuers.iter().any(|i| ours.contains(i)))
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn elsewhere(name: &str, answers: &Answers, want: &Wanted) -> String {
    let mut text = wanted(name, &want.target);
    if !want.addresses.is_empty() {
        let own = list(&want.addresses);
        text = format!("{text} Where no CNAME can be, A or AAAA records with {own} alone do as well.");
    }
    let seen = match (answers.chain.last(), answers.addresses.as_slice()) {
        (Some(end), _) => format!("it is a CNAME for '{end}'"),
        (None, []) => "it has no such record".to_owned(),
        (None, addresses) => format!("it has the addresses {} and no CNAME", list(addresses)),
    };
    format!("{text} Seen now: {seen}.")
}

fn forbidden(name: &str, caa: &Caa, ours: &str) -> String {
    let at = &caa.at;
    let named: Vec<_> = caa.issuers.iter().filter(|i| !i.is_empty()).cloned().collect();
    let allowed = if named.is_empty() {
        "nobody".to_owned()
    } else {
        list(&named)
    };
    format!(
        "The CAA records of '{at}' forbid a certificate for '{name}': add a CAA record 0 issue \"{ours}\" to '{at}'. \
         Seen now: it lets {allowed} issue."
    )
}

/// Asks the DNS.
#[derive(Clone)]
pub struct Dns {
    resolver: TokioResolver,
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dns")
    }
}

impl Dns {
    /// Asks `server`, else those of `/etc/resolv.conf`.
    pub fn new(server: Option<SocketAddr>) -> Result<Self, String> {
        let provider = TokioRuntimeProvider::default();
        let mut builder = match server {
            Some(address) => {
                let at = |mut connection: ConnectionConfig| {
                    connection.port = address.port();
                    connection
                };
                let connections = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
                let server = NameServerConfig::new(address.ip(), true, connections);
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
                TokioResolver::builder_with_config(config, provider)
            }
            None => TokioResolver::builder(provider).map_err(|e| e.to_string())?,
        };
        set(builder.options_mut());
        let resolver = builder.build().map_err(|e| e.to_string())?;
        Ok(Self { resolver })
    }

    /// Looks at a name.
    pub async fn check(&self, name: &str, want: &Wanted) -> Verdict {
        match self.answers(name, want).await {
            Ok(answers) => judge(name, &answers, want),
            Err(e) => Verdict::Unanswered(format!(
                "{} Seen now: its DNS servers do not answer ({e}).",
                wanted(name, &want.target)
            )),
        }
    }

    async fn answers(&self, name: &str, want: &Wanted) -> Result<Answers, NetError> {
        let mut answers = Answers::default();
        let mut at = name.to_owned();
        while answers.chain.len() < CHAIN
            && at != want.target
            && let Some(to) = self.cname(&at).await?
            && !answers.chain.contains(&to)
        {
            answers.chain.push(to.clone());
            at = to;
        }
        if at != want.target {
            for kind in [RecordType::A, RecordType::AAAA] {
                let records = self.records(name, kind).await?;
                answers
                    .addresses
                    .extend(records.iter().filter_map(|r| r.data.ip_addr()));
            }
        }
        if !want.issuers.is_empty() {
            answers.caa = self.caa(name).await;
        }
        Ok(answers)
    }

    async fn cname(&self, name: &str) -> Result<Option<String>, NetError> {
        let records = self.records(name, RecordType::CNAME).await?;
        let own = |record: &Record| plain(&record.name.to_ascii()) == name;
        Ok(records.iter().filter(|r| own(r)).find_map(|record| match &record.data {
            RData::CNAME(to) => Some(plain(&to.0.to_ascii())),
            _ => None,
        }))
    }

    /// The nearest CAA records, from the name up (RFC 8659 §3). Where nobody answers, the CA decides.
    async fn caa(&self, name: &str) -> Option<Caa> {
        let mut at = name;
        loop {
            let records = self.records(at, RecordType::CAA).await.ok()?;
            let found: Vec<_> = records
                .iter()
                .filter_map(|record| match &record.data {
                    RData::CAA(caa) => Some((caa.issuer_critical, caa.tag.to_ascii_lowercase(), &caa.value)),
                    _ => None,
                })
                .collect();
            if !found.is_empty() {
                let issuers = found.iter().filter(|(_, tag, _)| tag == "issue");
                let known = [
                    "issue",
                    "issuewild",
                    "iodef",
                    "issuemail",
                    "contactemail",
                    "contactphone",
                ];
                return Some(Caa {
                    at: at.to_owned(),
                    issuers: issuers.map(|(_, _, value)| issuer(value)).collect(),
                    unknown_critical: found
                        .iter()
                        .any(|(must, tag, _)| *must && !known.contains(&tag.as_str())),
                });
            }
            (_, at) = at.split_once('.')?;
        }
    }

    /// The records of a kind; none when there are none.
    async fn records(&self, name: &str, kind: RecordType) -> Result<Vec<Record>, NetError> {
        match self.resolver.lookup(format!("{name}."), kind).await {
            Ok(found) => Ok(found.answers().to_vec()),
            Err(e) if e.is_nx_domain() || e.is_no_records_found() => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }
}

fn set(options: &mut ResolverOpts) {
    // What an owner has just changed is to be seen, not what was there before.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = TIMEOUT;
    options.attempts = 2;
}

/// The domain of an `issue` property: up to the parameters (RFC 8659 §4.2).
fn issuer(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let domain = text.split(';').next().unwrap_or_default();
    domain.trim().trim_end_matches('.').to_ascii_lowercase()
}

fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged() {
        let want = Wanted {
            target: "edge.example.net".to_owned(),
            addresses: vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()],
            issuers: vec!["ca.example".to_owned()],
        };
        let here = ["edge.example.net"].as_slice();
        let own = [192, 0, 2, 1].into();
        let other: IpAddr = [203, 0, 113, 9].into();
        let caa = |issuers: &[&str], unknown_critical| {
            Some(Caa {
                at: "example.com".to_owned(),
                issuers: issuers.iter().map(|i| (*i).to_owned()).collect(),
                unknown_critical,
            })
        };
        for (name, chain, addresses, caa, expected) in [
            ("CNAME", here, vec![], None, None),
            ("chain", &["a.example.org", "edge.example.net"], vec![other], None, None),
            ("past it", &["edge.example.net", "lb.example.net"], vec![], None, None),
            ("apex", &[], vec![own], None, None),
            ("nothing", &[], vec![], None, Some("Seen now: it has no such record.")),
            (
                "elsewhere",
                &["a.b", "c.d"],
                vec![other],
                None,
                Some("Seen now: it is a CNAME for 'c.d'."),
            ),
            (
                "half",
                &[],
                vec![own, other],
                None,
                Some("it has the addresses 192.0.2.1, 203.0.113.9 and no CNAME"),
            ),
            ("CAA ours", here, vec![], caa(&["x.example", "ca.example"], false), None),
            ("CAA without issue", here, vec![], caa(&[], false), None),
            (
                "CAA another's",
                here,
                vec![],
                caa(&["x.example"], false),
                Some("it lets x.example issue"),
            ),
            (
                "CAA nobody",
                here,
                vec![],
                caa(&[""], false),
                Some("it lets nobody issue"),
            ),
            (
                "CAA unknown",
                here,
                vec![],
                caa(&["ca.example"], true),
                Some("0 issue \"ca.example\" to 'example.com'"),
            ),
        ] {
            let answers = Answers {
                chain: chain.iter().map(|c| (*c).to_owned()).collect(),
                addresses,
                caa,
            };
            match (judge("x.example.com", &answers, &want), expected) {
                (Verdict::Here, None) => {}
                (Verdict::NotYet(text), Some(part)) => {
                    assert!(text.contains(part), "{name}: {text}");
                    let first = "Create a CNAME for 'x.example.com' and point it to 'edge.example.net'.";
                    assert!(text.starts_with(first) || text.starts_with("The CAA records"), "{text}");
                }
                (verdict, _) => panic!("{name}: {verdict:?}"),
            }
        }
        let silent = Wanted {
            issuers: Vec::new(),
            ..want
        };
        let answers = Answers {
            chain: vec!["edge.example.net".to_owned()],
            caa: caa(&["x.example"], false),
            ..Answers::default()
        };
        assert_eq!(judge("x.example.com", &answers, &silent), Verdict::Here);
    }

    #[test]
    fn an_issuer_is_what_stands_before_the_parameters() {
        for (value, domain) in [
            ("CA.example", "ca.example"),
            (" ca.example ; account=1", "ca.example"),
            (";", ""),
            ("", ""),
        ] {
            assert_eq!(issuer(value.as_bytes()), domain, "{value}");
        }
    }
}
