//! The leaves of SEAMCALL, as numbers.

use super::LeafWord;
use crate::open_enum::open_enum;

open_enum! {
    /// A host-side leaf number (RAX bits 15:0 of a SEAMCALL).
    pub enum TdhLeaf : u16 {
        /// `TDH.VP.ENTER`.
        VP_ENTER = 0, "TDH.VP.ENTER";
        /// `TDH.MNG.ADDCX`.
        MNG_ADDCX = 1, "TDH.MNG.ADDCX";
        /// `TDH.MEM.PAGE.ADD`.
        MEM_PAGE_ADD = 2, "TDH.MEM.PAGE.ADD";
        /// `TDH.MEM.SEPT.ADD`.
        MEM_SEPT_ADD = 3, "TDH.MEM.SEPT.ADD";
        /// `TDH.VP.ADDCX`.
        VP_ADDCX = 4, "TDH.VP.ADDCX";
        /// `TDH.MEM.PAGE.RELOCATE`.
        MEM_PAGE_RELOCATE = 5, "TDH.MEM.PAGE.RELOCATE";
        /// `TDH.MEM.PAGE.AUG`.
        MEM_PAGE_AUG = 6, "TDH.MEM.PAGE.AUG";
        /// `TDH.MEM.RANGE.BLOCK`.
        MEM_RANGE_BLOCK = 7, "TDH.MEM.RANGE.BLOCK";
        /// `TDH.MNG.KEY.CONFIG`.
        MNG_KEY_CONFIG = 8, "TDH.MNG.KEY.CONFIG";
        /// `TDH.MNG.CREATE`.
        MNG_CREATE = 9, "TDH.MNG.CREATE";
        /// `TDH.VP.CREATE`.
        VP_CREATE = 10, "TDH.VP.CREATE";
        /// `TDH.MNG.RD`.
        MNG_RD = 11, "TDH.MNG.RD";
        /// `TDH.MEM.RD`.
        MEM_RD = 12, "TDH.MEM.RD";
        /// `TDH.MNG.WR`.
        MNG_WR = 13, "TDH.MNG.WR";
        /// `TDH.MEM.WR`.
        MEM_WR = 14, "TDH.MEM.WR";
        /// `TDH.MEM.PAGE.DEMOTE`.
        MEM_PAGE_DEMOTE = 15, "TDH.MEM.PAGE.DEMOTE";
        /// `TDH.MR.EXTEND`.
        MR_EXTEND = 16, "TDH.MR.EXTEND";
        /// `TDH.MR.FINALIZE`.
        MR_FINALIZE = 17, "TDH.MR.FINALIZE";
        /// `TDH.VP.FLUSH`.
        VP_FLUSH = 18, "TDH.VP.FLUSH";
        /// `TDH.MNG.VPFLUSHDONE`.
        MNG_VPFLUSHDONE = 19, "TDH.MNG.VPFLUSHDONE";
        /// `TDH.MNG.KEY.FREEID`.
        MNG_KEY_FREEID = 20, "TDH.MNG.KEY.FREEID";
        /// `TDH.MNG.INIT`.
        MNG_INIT = 21, "TDH.MNG.INIT";
        /// `TDH.VP.INIT`.
        VP_INIT = 22, "TDH.VP.INIT";
        /// `TDH.MEM.PAGE.PROMOTE`.
        MEM_PAGE_PROMOTE = 23, "TDH.MEM.PAGE.PROMOTE";
        /// `TDH.PHYMEM.PAGE.RDMD`.
        PHYMEM_PAGE_RDMD = 24, "TDH.PHYMEM.PAGE.RDMD";
        /// `TDH.MEM.SEPT.RD`.
        MEM_SEPT_RD = 25, "TDH.MEM.SEPT.RD";
        /// `TDH.VP.RD`.
        VP_RD = 26, "TDH.VP.RD";
        /// `TDH.MNG.KEY.RECLAIMID`.
        MNG_KEY_RECLAIMID = 27, "TDH.MNG.KEY.RECLAIMID";
        /// `TDH.PHYMEM.PAGE.RECLAIM`.
        PHYMEM_PAGE_RECLAIM = 28, "TDH.PHYMEM.PAGE.RECLAIM";
        /// `TDH.MEM.PAGE.REMOVE`.
        MEM_PAGE_REMOVE = 29, "TDH.MEM.PAGE.REMOVE";
        /// `TDH.MEM.SEPT.REMOVE`.
        MEM_SEPT_REMOVE = 30, "TDH.MEM.SEPT.REMOVE";
        /// `TDH.SYS.KEY.CONFIG`.
        SYS_KEY_CONFIG = 31, "TDH.SYS.KEY.CONFIG";
        /// `TDH.SYS.INFO`.
        SYS_INFO = 32, "TDH.SYS.INFO";
        /// `TDH.SYS.INIT`.
        SYS_INIT = 33, "TDH.SYS.INIT";
        /// `TDH.SYS.RD`.
        SYS_RD = 34, "TDH.SYS.RD";
        /// `TDH.SYS.LP.INIT`.
        SYS_LP_INIT = 35, "TDH.SYS.LP.INIT";
        /// `TDH.SYS.TDMR.INIT`.
        SYS_TDMR_INIT = 36, "TDH.SYS.TDMR.INIT";
        /// `TDH.SYS.RDALL`.
        SYS_RDALL = 37, "TDH.SYS.RDALL";
        /// `TDH.MEM.TRACK`.
        MEM_TRACK = 38, "TDH.MEM.TRACK";
        /// `TDH.MEM.RANGE.UNBLOCK`.
        MEM_RANGE_UNBLOCK = 39, "TDH.MEM.RANGE.UNBLOCK";
        /// `TDH.PHYMEM.CACHE.WB`.
        PHYMEM_CACHE_WB = 40, "TDH.PHYMEM.CACHE.WB";
        /// `TDH.PHYMEM.PAGE.WBINVD`.
        PHYMEM_PAGE_WBINVD = 41, "TDH.PHYMEM.PAGE.WBINVD";
        /// `TDH.VP.WR`.
        VP_WR = 43, "TDH.VP.WR";
        /// `TDH.SYS.LP.SHUTDOWN`.
        SYS_LP_SHUTDOWN = 44, "TDH.SYS.LP.SHUTDOWN";
        /// `TDH.SYS.CONFIG`.
        SYS_CONFIG = 45, "TDH.SYS.CONFIG";
        /// `TDH.SERVTD.BIND`.
        SERVTD_BIND = 48, "TDH.SERVTD.BIND";
        /// `TDH.SERVTD.PREBIND`.
        SERVTD_PREBIND = 49, "TDH.SERVTD.PREBIND";
        /// `TDH.SYS.SHUTDOWN`.
        SYS_SHUTDOWN = 52, "TDH.SYS.SHUTDOWN";
        /// `TDH.SYS.UPDATE`.
        SYS_UPDATE = 53, "TDH.SYS.UPDATE";
        /// `TDH.PHYMEM.PAMT.ADD`.
        PHYMEM_PAMT_ADD = 58, "TDH.PHYMEM.PAMT.ADD";
        /// `TDH.PHYMEM.PAMT.REMOVE`.
        PHYMEM_PAMT_REMOVE = 59, "TDH.PHYMEM.PAMT.REMOVE";
        /// `TDH.EXPORT.ABORT`.
        EXPORT_ABORT = 64, "TDH.EXPORT.ABORT";
        /// `TDH.EXPORT.BLOCKW`.
        EXPORT_BLOCKW = 65, "TDH.EXPORT.BLOCKW";
        /// `TDH.EXPORT.RESTORE`.
        EXPORT_RESTORE = 66, "TDH.EXPORT.RESTORE";
        /// `TDH.EXPORT.MEM`.
        EXPORT_MEM = 68, "TDH.EXPORT.MEM";
        /// `TDH.EXPORT.PAUSE`.
        EXPORT_PAUSE = 70, "TDH.EXPORT.PAUSE";
        /// `TDH.EXPORT.TRACK`.
        EXPORT_TRACK = 71, "TDH.EXPORT.TRACK";
        /// `TDH.EXPORT.STATE.IMMUTABLE`.
        EXPORT_STATE_IMMUTABLE = 72, "TDH.EXPORT.STATE.IMMUTABLE";
        /// `TDH.EXPORT.STATE.TD`.
        EXPORT_STATE_TD = 73, "TDH.EXPORT.STATE.TD";
        /// `TDH.EXPORT.STATE.VP`.
        EXPORT_STATE_VP = 74, "TDH.EXPORT.STATE.VP";
        /// `TDH.EXPORT.UNBLOCKW`.
        EXPORT_UNBLOCKW = 75, "TDH.EXPORT.UNBLOCKW";
        /// `TDH.IMPORT.ABORT`.
        IMPORT_ABORT = 80, "TDH.IMPORT.ABORT";
        /// `TDH.IMPORT.END`.
        IMPORT_END = 81, "TDH.IMPORT.END";
        /// `TDH.IMPORT.COMMIT`.
        IMPORT_COMMIT = 82, "TDH.IMPORT.COMMIT";
        /// `TDH.IMPORT.MEM`.
        IMPORT_MEM = 83, "TDH.IMPORT.MEM";
        /// `TDH.IMPORT.TRACK`.
        IMPORT_TRACK = 84, "TDH.IMPORT.TRACK";
        /// `TDH.IMPORT.STATE.IMMUTABLE`.
        IMPORT_STATE_IMMUTABLE = 85, "TDH.IMPORT.STATE.IMMUTABLE";
        /// `TDH.IMPORT.STATE.TD`.
        IMPORT_STATE_TD = 86, "TDH.IMPORT.STATE.TD";
        /// `TDH.IMPORT.STATE.VP`.
        IMPORT_STATE_VP = 87, "TDH.IMPORT.STATE.VP";
        /// `TDH.MIG.STREAM.CREATE`.
        MIG_STREAM_CREATE = 96, "TDH.MIG.STREAM.CREATE";
        /// `TDH.SERVTD.REBIND`.
        SERVTD_REBIND = 97, "TDH.SERVTD.REBIND";
    }
}

impl TdhLeaf {
    /// RAX for this leaf at version 0.
    pub const fn word(self) -> LeafWord {
        LeafWord::new(self.0, 0)
    }

    /// RAX for this leaf at another version.
    pub const fn word_version(self, version: u8) -> LeafWord {
        LeafWord::new(self.0, version)
    }
}
