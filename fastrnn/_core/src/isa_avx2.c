#define ISA avx2
#include "build.h"
