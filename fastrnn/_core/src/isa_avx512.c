#define ISA avx512
#include "build.h"
