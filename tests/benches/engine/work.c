/* Work for a processor, in pieces: says when each begins and when it ends, for whoever watches the console. The host
 * takes the time: a guest's own clock is a part of what is measured. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the work comes to; printed, so that no compiler may leave the work out. */
static uint64_t result;

/* Shifts and exclusive-ors in registers, each waiting for the one before. */
static void register_loop(void)
{
    uint64_t state = 0x9e3779b97f4a7c15u;
    for (long turn = 0; turn < 40000000; turn++) {
        state ^= state << 7;
        state ^= state >> 9;
        state ^= state << 8;
    }
    result += state;
}

/* Primes below four million: bytes in long strides, and a branch that is hard to predict. */
static void sieve(void)
{
    enum { LIMIT = 4000000 };
    static unsigned char composite[LIMIT];
    memset(composite, 0, sizeof composite);
    for (long number = 2; number < LIMIT; number++) {
        if (composite[number])
            continue;
        result++;
        for (long multiple = number * number; multiple < LIMIT; multiple += number)
            composite[multiple] = 1;
    }
}

static int ascending(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

/* Half a million numbers through the C library: indirect calls and small moves. */
static void sort(void)
{
    enum { COUNT = 500000 };
    static uint32_t numbers[COUNT];
    uint32_t state = 1;
    for (int i = 0; i < COUNT; i++) {
        state = state * 1103515245u + 12345u;
        numbers[i] = state;
    }
    qsort(numbers, COUNT, sizeof *numbers, ascending);
    result += numbers[COUNT / 3];
}

/* Square matrices of doubles, straight from the definition: scalar floating point. */
static void matrix(void)
{
    enum { SIZE = 128, ROUNDS = 4 };
    static double left[SIZE][SIZE], right[SIZE][SIZE], product[SIZE][SIZE];
    for (int row = 0; row < SIZE; row++)
        for (int column = 0; column < SIZE; column++) {
            left[row][column] = row + 2 * column;
            right[row][column] = row - column;
        }
    for (int round = 0; round < ROUNDS; round++)
        for (int row = 0; row < SIZE; row++)
            for (int column = 0; column < SIZE; column++) {
                double sum = 0;
                for (int k = 0; k < SIZE; k++)
                    sum += left[row][k] * right[k][column];
                product[row][column] = sum + round;
            }
    result += (uint64_t)(int64_t)product[3][5];
}

/* Eight mebibytes copied and filled, again and again: as fast as the C library moves bytes. */
static void copy(void)
{
    enum { BYTES = 8 << 20, ROUNDS = 60 };
    static char from[BYTES], to[BYTES];
    for (int round = 0; round < ROUNDS; round++) {
        memset(from, round, BYTES);
        memcpy(to, from, BYTES);
        result += (unsigned char)to[round];
    }
}

static const struct {
    const char *name;
    void (*work)(void);
} pieces[] = {
    {"register_loop", register_loop}, {"sieve", sieve}, {"qsort", sort}, {"matrix", matrix}, {"memcpy", copy},
};

static int run_on(int processor)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    return sched_setaffinity(0, sizeof set, &set);
}

/* Long enough that starting the second process is nothing beside it. */
static void long_loop(void)
{
    for (int round = 0; round < 8; round++)
        register_loop();
}

/* The register loop on one processor, and then on two at once. */
static int scaling(void)
{
    if (run_on(0))
        return 1;
    puts("engine: begin alone");
    long_loop();
    puts("engine: end alone");
    puts("engine: begin together");
    pid_t other = fork();
    if (other < 0)
        return 1;
    if (other == 0) {
        if (run_on(1))
            _exit(1);
        long_loop();
        _exit(result == 0);
    }
    long_loop();
    int status;
    if (waitpid(other, &status, 0) != other || status != 0)
        return 1;
    puts("engine: end together");
    return 0;
}

int main(int count, char **arguments)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count > 1 && strcmp(arguments[1], "scaling") == 0)
        return scaling();
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        printf("engine: begin %s\n", pieces[i].name);
        pieces[i].work();
        printf("engine: end %s\n", pieces[i].name);
    }
    printf("engine: result %llx\n", (unsigned long long)result);
    return 0;
}
