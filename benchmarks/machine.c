/* What this machine can do, for the report to compare with: multiply-adds of floats per second, and bytes per second
 * read from L2, L3 and memory, by all threads together. Compiled and run by machine.py:
 *
 *     machine THREADS SECONDS L2_BYTES_PER_THREAD L3_BYTES_PER_THREAD MEMORY_BYTES_PER_THREAD
 *
 * prints four numbers: FLOP/s, then bytes/s of the three. Each is measured for SECONDS (50 ms: what the cores sustain,
 * not their first burst); all threads start together, and each counts what it did by the time all stop. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#if defined(__AVX512F__)
#define WIDTH 64
#elif defined(__AVX__)
#define WIDTH 32
#else
#define WIDTH 16
#endif
#define CHAINS 12 /* latency 4 times 2 a cycle is 8; 12 and two operands fit 16 registers */

typedef float vector __attribute__((vector_size(WIDTH), may_alias));

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* 1000 rounds of CHAINS independent multiply-adds; the values go towards a fixed point, so none becomes denormal. */
static double fma_round(vector *state)
{
    vector chain[CHAINS], scale, shift;
    memcpy(chain, state, sizeof chain);
    for (int lane = 0; lane < WIDTH / 4; lane++) {
        scale[lane] = 0.999f;
        shift[lane] = 0.001f;
    }
    for (int round = 0; round < 1000; round++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            chain[i] = chain[i] * scale + shift;
        /* the loop must stay as it is written */
        __asm__ volatile("" ::: "memory");
    }
    memcpy(state, chain, sizeof chain);
    return 2.0 * 1000 * CHAINS * (WIDTH / 4);
}

/* Reads `bytes` once; a multiple of 8 vectors. */
static double read_round(const char *data, size_t bytes, vector *state)
{
    vector sum[8];
    memcpy(sum, state, sizeof sum);
    for (size_t at = 0; at < bytes; at += sizeof sum) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            sum[i] += *(const vector *)(data + at + i * WIDTH);
    }
    memcpy(state, sum, sizeof sum);
    return (double)bytes;
}

/* Per second, summed over the threads: FLOPs if bytes is 0, else bytes read again and again. */
static double rate(int threads, double seconds, size_t bytes)
{
    double total = 0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
    {
        static const size_t line = 4096;
        char *data = bytes ? aligned_alloc(line, bytes) : NULL;
        vector *state = aligned_alloc(64, CHAINS * sizeof(vector));
        memset(state, 0, CHAINS * sizeof(vector));
        if (data) {
            memset(data, 0, bytes);
            read_round(data, bytes, state);
        }
#pragma omp barrier
        double start = now(), end = start, done = 0;
        do {
            done += data ? read_round(data, bytes, state) : fma_round(state);
            end = now();
        } while (end - start < seconds);
        total += done / (end - start);
        volatile float used = state[0][0];
        (void)used;
#pragma omp barrier
        free(data);
        free(state);
    }
    return total;
}

int main(int count, char **arguments)
{
    if (count != 6)
        return 2;
    int threads = atoi(arguments[1]);
    double seconds = atof(arguments[2]);
#ifndef _OPENMP
    threads = 1;
#endif
    printf("%d %.6g", threads, rate(threads, seconds, 0));
    for (int i = 3; i < 6; i++) {
        size_t bytes = strtoull(arguments[i], NULL, 10) / 4096 * 4096;
        printf(" %.6g", bytes ? rate(threads, seconds, bytes) : 0.0);
    }
    printf("\n");
    return 0;
}
