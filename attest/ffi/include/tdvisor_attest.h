/*
 * Verification of TDX quotes.
 *
 * Every function may be called from any thread at any time. Nothing that is passed in is kept, and nothing is written but
 * where an argument says so. Times are seconds since 1970-01-01T00:00:00Z.
 *
 * Link with libtdvisor_attest_ffi.a -lpthread -ldl -lm, or with libtdvisor_attest_ffi.so.
 */
#ifndef TDVISOR_ATTEST_H
#define TDVISOR_ATTEST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Version of this interface: it grows when something in it changes its meaning or goes. */
#define TDVISOR_ATTEST_ABI 1

/* Answers of the functions below. */
#define TDVISOR_ACCEPTED 0 /* the quote is valid, and the policy accepts it */
#define TDVISOR_REJECTED 1 /* the quote is not valid, or the policy rejects it: the answer says why */
#define TDVISOR_UNUSABLE 2 /* something that was passed in cannot be used: the answer says what */
#define TDVISOR_FAULT 4    /* a fault of this library; there may be no answer */

/* Bytes that are lent for the time of a call. A NULL pointer stands for nothing at all. */
typedef struct tdvisor_bytes {
    const uint8_t *bytes;
    size_t length;
} tdvisor_bytes;

/* What is to be verified, and against what. */
typedef struct tdvisor_verify_request {
    /* The quote in any of its forms: bytes, hexadecimal, base64, evidence JSON. */
    tdvisor_bytes quote;
    /* Collateral: a bundle, as JSON. */
    tdvisor_bytes collateral;
    /* The root certificate that is trusted (DER or PEM). Nothing: Intel's. */
    tdvisor_bytes root;
    /* What is accepted (TOML or JSON). Nothing: a TD with an up-to-date TCB and no debug. */
    tdvisor_bytes policy;
    /* What REPORTDATA must be: up to 64 bytes, zeros where it is shorter. Nothing: it is not looked at, and an old quote
     * is as good as a new one. */
    tdvisor_bytes report_data;
    /* The time that it is verified for. */
    uint64_t at;
} tdvisor_verify_request;

/* TDVISOR_ATTEST_ABI of the library. */
uint32_t tdvisor_attest_abi(void);

/*
 * Verifies a quote. `answer`, which may be NULL, gets a JSON text that ends with a NUL, and that tdvisor_free must get
 * back; or NULL, if there is none.
 */
int32_t tdvisor_verify(const tdvisor_verify_request *request, char **answer);

/*
 * Verifies a quote without a policy, and gives the claims that Intel's quote verification library has for it, by the names
 * that Trustee gives them. `policy` and `report_data` must be nothing. TDVISOR_ACCEPTED: the quote is valid; its TCB status
 * is one of the claims, and may be any but revoked.
 */
int32_t tdvisor_intel_dcap_claims(const tdvisor_verify_request *request, char **answer);

/* Gives an answer back. NULL is allowed. */
void tdvisor_free(char *answer);

#ifdef __cplusplus
}
#endif

#endif /* TDVISOR_ATTEST_H */
