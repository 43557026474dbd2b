//! The host leaves about physical memory (TDH.PHYMEM.*).

use crate::leaf::info::{
    Interruption::Resumable,
    Kind::{Bits, Hpa, Number, PageSize, PageType},
    OPERAND, leaves, reg, row,
};
use crate::regs::Reg::{R8, R9, R10, R11, Rcx, Rdx};
use crate::release::Release::V2_0;

leaves! {
    of super::TdhLeaf;

    PHYMEM_PAGE_RDMD = 24, "TDH.PHYMEM.PAGE.RDMD": row("read a page's PAMT entry",
        &[
            reg(Rcx, "page", Hpa),
        ],
        &[
            reg(Rcx, "page type", PageType),
            reg(Rdx, "owner's TDR", Hpa),
            reg(R8, "size", PageSize),
            reg(R9, "blocking epoch", Number),
            reg(R10, "zero", Bits),
            reg(R11, "zero", Bits),
        ]);
    PHYMEM_PAGE_RECLAIM = 28, "TDH.PHYMEM.PAGE.RECLAIM": row("take back a page of a TD in teardown",
        &[
            reg(Rcx, "page", Hpa),
        ],
        &[
            reg(Rcx, "page type", PageType),
            reg(Rdx, "owner's TDR", Hpa),
            reg(R8, "size", PageSize),
        ])
        .transient(OPERAND);
    PHYMEM_CACHE_WB = 40, "TDH.PHYMEM.CACHE.WB": row("write back this package's caches",
        &[
            reg(Rcx, "0 start, 1 resume", Number),
        ],
        &[])
        .interruption(Resumable);
    PHYMEM_PAGE_WBINVD = 41, "TDH.PHYMEM.PAGE.WBINVD": row("write back and invalidate the cache lines of a page",
        &[
            reg(Rcx, "page with key id", Bits),
        ],
        &[])
        .transient(OPERAND);
    PHYMEM_PAMT_ADD = 58, "TDH.PHYMEM.PAMT.ADD": row("dynamic PAMT: add the PAMT pages of a 2M range",
        &[
            reg(Rcx, "range and level", Bits),
            reg(Rdx, "first page", Hpa),
            reg(R8, "second page", Hpa),
        ],
        &[])
        .since(V2_0);
    PHYMEM_PAMT_REMOVE = 59, "TDH.PHYMEM.PAMT.REMOVE": row("dynamic PAMT: take back the PAMT pages of a 2M range",
        &[
            reg(Rcx, "range and level", Bits),
        ],
        &[
            reg(Rdx, "first page", Hpa),
            reg(R8, "second page", Hpa),
        ])
        .since(V2_0);
}
