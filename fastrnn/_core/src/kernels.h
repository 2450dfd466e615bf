/* kernels.h - every kernel for one REAL, in the order in which they build on each other. */
#include "simd.h"
#include "activations.h"
#include "gemm.h"
#include "product.h"
#include "pack.h"
#include "worker.h"
#include "sequence.h"
#include "stream.h"
