/*
 * What a compiler makes of plain code for x86-64-v3 (AVX2, FMA, F16C, BMI), and the C library's string functions for it: each
 * result is printed, and is the same on every processor that has the instructions.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT 1021

static float single[COUNT], other[COUNT];
static double wide[COUNT];
static int32_t words[COUNT];
static _Float16 half[COUNT];
static int order[COUNT];

static uint64_t digest(const void *data, size_t bytes)
{
	const unsigned char *at = data;
	uint64_t hash = 0xcbf29ce484222325;

	while (bytes--)
		hash = (hash ^ *at++) * 0x100000001b3;
	return hash;
}

static void numbers(void)
{
	double sum = 0;
	int32_t most = INT32_MIN;

	for (int n = 0; n < COUNT; n++) {
		single[n] = n * 0.37f - 100;
		other[n] = 3 - n * 0.011f;
		words[n] = n * 2654435761u;
		order[n] = (n * 389) % COUNT;
	}
	for (int n = 0; n < COUNT; n++)
		single[n] = __builtin_fmaf(single[n], other[n], -single[n]);
	for (int n = 0; n < COUNT; n++)
		half[n] = single[n];
	for (int n = 0; n < COUNT; n++)
		wide[n] = (double)half[n] * words[order[n]];
	for (int n = 0; n < COUNT; n++)
		if (words[n] > 0 && wide[n] > 0)
			words[n] = words[n] >> (n & 15) ^ words[n] << (n & 7);
	for (int n = 0; n < COUNT; n++)
		most = words[n] > most ? words[n] : most;
	for (int n = 0; n < COUNT; n++)
		sum = __builtin_fma(wide[n], 1.0 / 3, sum);
	printf("single %016llx\n", (unsigned long long)digest(single, sizeof single));
	printf("half %016llx\n", (unsigned long long)digest(half, sizeof half));
	printf("wide %016llx\n", (unsigned long long)digest(wide, sizeof wide));
	printf("words %016llx %d\n", (unsigned long long)digest(words, sizeof words), most);
	printf("sum %a %.15f\n", sum, exp(1) * sin(1) + pow(2, 0.5));
}

/* Every length and alignment up to some vectors: where a fault of one would be, there are no bytes. */
static void strings(void)
{
	static char text[512], copy[512];
	unsigned long found = 0;

	for (int begin = 0; begin < 64; begin++)
		for (int length = 0; length < 200; length++) {
			memset(text, 'x', sizeof text);
			memset(text + begin, 'a' + length % 3, length);
			text[begin + length] = 0;
			found += strlen(text + begin);
			found += (unsigned long)(strchr(text + begin, 0) - text);
			memmove(copy + 64 - begin, text + begin, length + 1);
			found += strcmp(copy + 64 - begin, text + begin) == 0;
			found += memcmp(copy, text, 64) != 0;
			found += memchr(text, 0, sizeof text) == text + begin + length;
			found += strrchr(text + begin, 'a') != NULL;
		}
	printf("strings %lu %016llx\n", found, (unsigned long long)digest(copy, sizeof copy));
}

int main(void)
{
	numbers();
	strings();
	return 0;
}
