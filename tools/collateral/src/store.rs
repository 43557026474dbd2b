//! Collateral by the requests that it answers: those of Intel's service, as a PCCS has them.

use std::collections::BTreeMap;
use std::fmt::Write;

use tdvisor_attest::collateral::{
    CollateralError, Inventory, IssuedCrl, Parts, QeIdentity, SignedBody, TcbInfo,
};
use tdvisor_attest::quote::TeeType;
use tdvisor_attest::x509::{Certificate, RevocationList, pem};
use tdvisor_attest::{Hex, pck::PckExtension};

use crate::answer::{Answer, CHAIN_HEADERS};

/// What a request ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Status 200.
    Found {
        /// The type of the body.
        content_type: &'static str,
        /// The body and the headers with chains.
        answer: Answer,
    },
    /// Status 400: a parameter is missing, twice there, or impossible.
    BadRequest(&'static str),
    /// Status 404: there is no such path, or nothing for these parameters.
    NotFound,
}

/// Parameters of a request, each at most once.
struct Query<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Query<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut all = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=')?;
            if all.insert(name, value).is_some() {
                return None;
            }
        }
        Some(Self(all))
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }
}

/// Which of several data sets a request wants.
enum Set {
    Newest,
    Oldest,
    Numbered(u32),
}

impl Set {
    fn of(query: &Query<'_>) -> Result<Self, Reply> {
        match (query.get("update"), query.get("tcbEvaluationDataNumber")) {
            (Some(_), Some(_)) => {
                Err(Reply::BadRequest("update and tcbEvaluationDataNumber exclude each other"))
            }
            (Some("early"), None) => Ok(Self::Newest),
            (Some("standard") | None, None) => Ok(Self::Oldest),
            (Some(_), None) => Err(Reply::BadRequest("update must be early or standard")),
            (None, Some(number)) => {
                let number = number.parse().map_err(|_| Reply::BadRequest("tcbEvaluationDataNumber"))?;
                Ok(Self::Numbered(number))
            }
        }
    }

    /// The one of `all` that is wanted; of two with the same number, the one that was issued last.
    fn choose<T>(&self, all: impl Iterator<Item = T>, number: impl Fn(&T) -> (u32, u64)) -> Option<T> {
        match self {
            Self::Newest => all.max_by_key(number),
            Self::Oldest => all.min_by_key(|one| (number(one).0, u64::MAX - number(one).1)),
            Self::Numbered(wanted) => {
                all.filter(|one| number(one).0 == *wanted).max_by_key(|one| number(one).1)
            }
        }
    }
}

/// Collateral that can be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store {
    inventory: Inventory,
}

impl Store {
    /// Everything that files hold.
    ///
    /// # Errors
    /// A part that cannot be read, or a signed body without its issuer chain.
    pub fn new(parts: &Parts) -> Result<Self, CollateralError> {
        Ok(Self { inventory: parts.inventory()? })
    }

    /// What there is.
    #[must_use]
    pub const fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Whether anything of it ends at another root than `root` (DER).
    #[must_use]
    pub fn has_other_root(&self, root: &[u8]) -> bool {
        let infos = self.inventory.tcb_infos.iter().map(|(_, body)| body);
        let bodies = infos.chain(self.inventory.qe_identities.iter().map(|(_, body)| body));
        bodies.into_iter().any(|body| !body.chain.iter().any(|der| der == root))
    }

    /// The answer to a request for `path` with `query`, what follows the question mark.
    #[must_use]
    pub fn answer(&self, path: &str, query: &str) -> Reply {
        let Some(query) = Query::parse(query) else {
            return Reply::BadRequest("a parameter without a value, or twice");
        };
        let found = match path {
            "/sgx/certification/v4/tcb" => self.tcb_info(TeeType::SGX, &query),
            "/tdx/certification/v4/tcb" => self.tcb_info(TeeType::TDX, &query),
            "/sgx/certification/v4/qe/identity" => self.qe_identity(TeeType::SGX, &query),
            "/tdx/certification/v4/qe/identity" => self.qe_identity(TeeType::TDX, &query),
            "/sgx/certification/v4/pckcrl" => self.pck_crl(&query),
            "/sgx/certification/v4/rootcacrl" => self.root_crl(),
            "/sgx/certification/v4/pckcert" => self.pck_certificate(&query),
            _ => Ok(Reply::NotFound),
        };
        found.unwrap_or_else(|problem| problem)
    }

    fn tcb_info(&self, tee: TeeType, query: &Query<'_>) -> Result<Reply, Reply> {
        let fmspc = query.get("fmspc").and_then(bytes::<6>).ok_or(Reply::BadRequest("fmspc: 12 digits"))?;
        let fitting =
            self.inventory.tcb_infos.iter().filter(|(info, _)| (info.tee, info.fmspc) == (tee, fmspc));
        let number = |one: &&(TcbInfo, SignedBody)| (one.0.evaluation_number, one.0.issued.0);
        let Some((_, body)) = Set::of(query)?.choose(fitting, number) else { return Ok(Reply::NotFound) };
        let [header, ..] = CHAIN_HEADERS;
        Ok(signed("tcbInfo", body, header))
    }

    fn qe_identity(&self, tee: TeeType, query: &Query<'_>) -> Result<Reply, Reply> {
        let all = self.inventory.qe_identities.iter();
        let fitting = all.filter(|(identity, _)| identity.kind.signs_for() == Some(tee));
        let number = |one: &&(QeIdentity, SignedBody)| (one.0.evaluation_number, one.0.issued.0);
        let Some((_, body)) = Set::of(query)?.choose(fitting, number) else { return Ok(Reply::NotFound) };
        let [_, header, ..] = CHAIN_HEADERS;
        Ok(signed("enclaveIdentity", body, header))
    }

    fn pck_crl(&self, query: &Query<'_>) -> Result<Reply, Reply> {
        let phrase = match query.get("ca") {
            Some("platform") => "Platform CA",
            Some("processor") => "Processor CA",
            _ => return Err(Reply::BadRequest("ca must be platform or processor")),
        };
        let is_pem = match query.get("encoding") {
            Some("der") => false,
            Some("pem") | None => true,
            Some(_) => return Err(Reply::BadRequest("encoding must be der or pem")),
        };
        let of_ca = |crl: &&IssuedCrl| {
            !crl.chain.is_empty()
                && RevocationList::from_der(&crl.der)
                    .is_ok_and(|list| list.issuer.common_name_contains(phrase))
        };
        let issued =
            |crl: &&IssuedCrl| RevocationList::from_der(&crl.der).map_or(0, |list| list.validity.from.0);
        let Some(crl) = self.inventory.pck_crls.iter().filter(of_ca).max_by_key(issued) else {
            return Ok(Reply::NotFound);
        };
        let [_, _, header, _] = CHAIN_HEADERS;
        let (content_type, body) = if is_pem {
            let mut text = String::new();
            pem::write("X509 CRL", &crl.der, &mut text);
            ("application/x-pem-file", text.into_bytes())
        } else {
            ("application/pkix-crl", crl.der.clone())
        };
        Ok(Reply::Found { content_type, answer: Answer { chains: vec![(header, chain(&crl.chain))], body } })
    }

    /// The root's list, in hexadecimal as a PCCS has it.
    fn root_crl(&self) -> Result<Reply, Reply> {
        let issued = |der: &&Vec<u8>| RevocationList::from_der(der).map_or(0, |list| list.validity.from.0);
        let Some(der) = self.inventory.root_crls.iter().max_by_key(issued) else {
            return Ok(Reply::NotFound);
        };
        let answer = Answer { chains: Vec::new(), body: Hex(der).to_string().into_bytes() };
        Ok(Reply::Found { content_type: "text/plain", answer })
    }

    /// The certificate of a platform, by the identity that a quote has in its place.
    fn pck_certificate(&self, query: &Query<'_>) -> Result<Reply, Reply> {
        let wanted = |name: &'static str| query.get(name).ok_or(Reply::BadRequest(name));
        let cpu_svn = bytes::<16>(wanted("cpusvn")?).ok_or(Reply::BadRequest("cpusvn"))?;
        let pce_svn = bytes::<2>(wanted("pcesvn")?).ok_or(Reply::BadRequest("pcesvn"))?;
        let pce_id = bytes::<2>(wanted("pceid")?).ok_or(Reply::BadRequest("pceid"))?;
        // An encrypted PPID cannot be read here: the versions must say which platform it is, or nobody does.
        let fits = |chain: &&Vec<Vec<u8>>| {
            let platform = chain
                .iter()
                .find_map(|der| PckExtension::parse(Certificate::from_der(der).ok()?.extensions.sgx?).ok());
            platform.is_some_and(|pck| {
                (pck.cpu_svn, pck.pce_id) == (cpu_svn, pce_id)
                    && pck.pce_svn == u32::from(u16::from_le_bytes(pce_svn))
            })
        };
        let mut fitting = self.inventory.pck_chains.iter().filter(fits);
        let (Some(found), None) = (fitting.next(), fitting.next()) else { return Ok(Reply::NotFound) };
        let is_leaf = |der: &&Vec<u8>| {
            Certificate::from_der(der).is_ok_and(|certificate| certificate.extensions.sgx.is_some())
        };
        let (leaf, issuers): (Vec<&Vec<u8>>, Vec<&Vec<u8>>) = found.iter().partition(is_leaf);
        let mut body = String::new();
        leaf.iter().for_each(|der| pem::write("CERTIFICATE", der, &mut body));
        let issuers: Vec<Vec<u8>> = issuers.into_iter().cloned().collect();
        let [.., header] = CHAIN_HEADERS;
        let answer = Answer { chains: vec![(header, chain(&issuers))], body: body.into_bytes() };
        Ok(Reply::Found { content_type: "application/x-pem-file", answer })
    }
}

/// A signed body as services send it.
fn signed(name: &str, body: &SignedBody, header: &'static str) -> Reply {
    let text = format!("{{\"{name}\":{},\"signature\":\"{}\"}}", body.body, Hex(&body.signature.0));
    let answer = Answer { chains: vec![(header, chain(&body.chain))], body: text.into_bytes() };
    Reply::Found { content_type: "application/json", answer }
}

/// A chain as headers carry it: PEM, percent-encoded.
fn chain(ders: &[Vec<u8>]) -> String {
    let mut text = String::new();
    ders.iter().for_each(|der| pem::write("CERTIFICATE", der, &mut text));
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Bytes of a parameter in hexadecimal.
fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    if digits.len() != 2 * N || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, place) in bytes.iter_mut().enumerate() {
        *place = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}
