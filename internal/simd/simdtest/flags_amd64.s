#include "textflag.h"

// func flags() uint32
TEXT ·flags(SB), NOSPLIT, $0-4
	STMXCSR ret+0(FP)
	RET

// func clearFlags()
TEXT ·clearFlags(SB), NOSPLIT, $8-0
	STMXCSR x-8(SP)
	ANDL    $0xFFFFFFC0, x-8(SP)
	LDMXCSR x-8(SP)
	RET
