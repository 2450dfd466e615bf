#define ISA baseline
#include "build.h"
