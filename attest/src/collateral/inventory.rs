//! What a set of files holds, part by part: for services that hand collateral on.

use alloc::vec::Vec;

use super::{CollateralError, Parts, QeIdentity, SignedBody, TcbInfo};

/// A revocation list and the certificates that issued it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCrl {
    /// The list, DER.
    pub der: Vec<u8>,
    /// The certificates of the list's issuers, DER; empty where no file has them.
    pub chain: Vec<Vec<u8>>,
}

/// Every part of a set of files, decoded, with the chain that goes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// TCB infos, as signed.
    pub tcb_infos: Vec<(TcbInfo, SignedBody)>,
    /// Identities of quoting enclaves, as signed.
    pub qe_identities: Vec<(QeIdentity, SignedBody)>,
    /// Revocation lists of roots, DER.
    pub root_crls: Vec<Vec<u8>>,
    /// Revocation lists of everybody else; where there is no root among the certificates, also the root's.
    pub pck_crls: Vec<IssuedCrl>,
    /// PCK certificate chains, DER.
    pub pck_chains: Vec<Vec<Vec<u8>>>,
}

impl Parts {
    /// What the files hold.
    ///
    /// # Errors
    /// The first part that cannot be read; a signed body for which no file has the issuer chain.
    pub fn inventory(&self) -> Result<Inventory, CollateralError> {
        let mut inventory = Inventory::default();
        for body in self.signed_tcb_infos() {
            let body = body?;
            inventory.tcb_infos.push((TcbInfo::parse(&body.body)?, body));
        }
        for body in self.signed_qe_identities() {
            let body = body?;
            inventory.qe_identities.push((QeIdentity::parse(&body.body)?, body));
        }
        let [root, pck] = self.all_crls()?;
        inventory.root_crls = root;
        for der in pck {
            let chain = self.pck_crl_chain_of(&der)?;
            inventory.pck_crls.push(IssuedCrl { der, chain });
        }
        inventory.pck_chains = self.all_pck_chains();
        Ok(inventory)
    }
}
