/* Calls every function of the library, as a C program would. Arguments: quote, collateral, root, time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tdvisor_attest.h"

_Static_assert(sizeof(tdvisor_bytes) == 2 * sizeof(void *), "a pointer and a length");
_Static_assert(offsetof(tdvisor_verify_request, at) == 10 * sizeof(void *), "five times bytes before the time");

static int failures;

static void check(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "does not hold: %s\n", what);
        failures++;
    }
}

static tdvisor_bytes file(const char *path) {
    FILE *stream = fopen(path, "rb");
    if (!stream) {
        perror(path);
        exit(2);
    }
    uint8_t *bytes = malloc(1 << 20);
    size_t length = fread(bytes, 1, 1 << 20, stream);
    fclose(stream);
    return (tdvisor_bytes){bytes, length};
}

typedef int32_t function(const tdvisor_verify_request *, char **);

/* Calls, and checks the result and that the answer has a word in it. */
static void expect(function *called, const tdvisor_verify_request *request, int32_t wanted, const char *word) {
    char *answer = NULL;
    int32_t result = called(request, &answer);
    int holds = result == wanted && answer && strstr(answer, word);
    check(holds, word);
    if (!holds) fprintf(stderr, "got %d: %s\n", (int)result, answer ? answer : "(no answer)");
    tdvisor_free(answer);
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    tdvisor_verify_request request = {0};
    char *answer = NULL;
    request.quote = file(argv[1]);
    request.collateral = file(argv[2]);
    request.root = file(argv[3]);
    request.at = strtoull(argv[4], NULL, 10);

    check(tdvisor_attest_abi() == TDVISOR_ATTEST_ABI, "the header is the library's");
    expect(tdvisor_verify, &request, TDVISOR_ACCEPTED, "\"policy\":\"accept\"");
    expect(tdvisor_intel_dcap_claims, &request, TDVISOR_ACCEPTED, "\"tcb_status\":\"UpToDate\"");

    tdvisor_verify_request other = request;
    other.root = (tdvisor_bytes){NULL, 0};
    expect(tdvisor_verify, &other, TDVISOR_REJECTED, "\"quote\":\"invalid\"");
    expect(tdvisor_intel_dcap_claims, &other, TDVISOR_REJECTED, "error");

    uint8_t nonce[64] = {1};
    other = request;
    other.report_data = (tdvisor_bytes){nonce, sizeof nonce};
    expect(tdvisor_verify, &other, TDVISOR_REJECTED, "report");
    other.report_data.length = 65;
    expect(tdvisor_verify, &other, TDVISOR_UNUSABLE, "report_data");
    other.report_data.length = 0;
    expect(tdvisor_verify, &other, TDVISOR_UNUSABLE, "report_data");
    expect(tdvisor_intel_dcap_claims, &other, TDVISOR_UNUSABLE, "report_data");

    other = request;
    other.policy = (tdvisor_bytes){(const uint8_t *)"[tcb]\naccpet = []\n", 18};
    expect(tdvisor_verify, &other, TDVISOR_UNUSABLE, "accpet");

    other = request;
    other.quote = (tdvisor_bytes){(const uint8_t *)"no quote", 8};
    expect(tdvisor_verify, &other, TDVISOR_UNUSABLE, "not a quote");
    other.quote = (tdvisor_bytes){NULL, 0};
    expect(tdvisor_verify, &other, TDVISOR_UNUSABLE, "missing");

    answer = (char *)nonce;
    check(tdvisor_verify(NULL, &answer) == TDVISOR_UNUSABLE && !answer, "no request, no answer");
    other = request;
    other.quote.length = SIZE_MAX;
    answer = (char *)nonce;
    check(tdvisor_verify(&other, &answer) == TDVISOR_UNUSABLE && !answer, "a length that no object has");
    check(tdvisor_verify(&request, NULL) == TDVISOR_ACCEPTED, "no answer wanted");
    tdvisor_free(NULL);

    free((void *)request.quote.bytes);
    free((void *)request.collateral.bytes);
    free((void *)request.root.bytes);
    return failures ? 1 : 0;
}
