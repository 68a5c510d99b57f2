//go:build !purego

#include "go_asm.h"
#include "textflag.h"

// The tile instructions, which the assembler does not know. Operands are fixed: in DI, SI, DX
// rows of R8 bytes; in AX and R11 rows of R9.
#define LDTILECFG_AX     BYTE $0xc4; BYTE $0xe2; BYTE $0x78; BYTE $0x49; BYTE $0x00
#define TILERELEASE      BYTE $0xc4; BYTE $0xe2; BYTE $0x78; BYTE $0x49; BYTE $0xc0
#define TILEZERO_0       BYTE $0xc4; BYTE $0xe2; BYTE $0x7b; BYTE $0x49; BYTE $0xc0
#define TILEZERO_1       BYTE $0xc4; BYTE $0xe2; BYTE $0x7b; BYTE $0x49; BYTE $0xc8
#define TILEZERO_2       BYTE $0xc4; BYTE $0xe2; BYTE $0x7b; BYTE $0x49; BYTE $0xd0
#define TILEZERO_3       BYTE $0xc4; BYTE $0xe2; BYTE $0x7b; BYTE $0x49; BYTE $0xd8

// Rows 0 to 15 and 16 to 31 of A.
#define TILELOAD_SI_4    BYTE $0xc4; BYTE $0xa2; BYTE $0x7b; BYTE $0x4b; BYTE $0x24; BYTE $0x06
#define TILELOAD_DX_5    BYTE $0xc4; BYTE $0xa2; BYTE $0x7b; BYTE $0x4b; BYTE $0x2c; BYTE $0x02

// Columns 0 to 15 and 16 to 31 of a panel at DI, and of one at DX.
#define TILELOAD_DI_6    BYTE $0xc4; BYTE $0xa2; BYTE $0x7b; BYTE $0x4b; BYTE $0x34; BYTE $0x07
#define TILELOAD_DI1K_7  BYTE $0xc4; BYTE $0xa2; BYTE $0x7b; BYTE $0x4b; BYTE $0xbc; BYTE $0x07; LONG $1024
#define TILELOAD_DX1K_6  BYTE $0xc4; BYTE $0xa2; BYTE $0x7b; BYTE $0x4b; BYTE $0xb4; BYTE $0x02; LONG $1024

// C: two tiles side by side at AX, two more at R11 or 128 bytes on.
#define TILELOAD_AX_0    BYTE $0xc4; BYTE $0xa2; BYTE $0x7b; BYTE $0x4b; BYTE $0x04; BYTE $0x08
#define TILELOAD_AX64_1  BYTE $0xc4; BYTE $0xa2; BYTE $0x7b; BYTE $0x4b; BYTE $0x4c; BYTE $0x08; BYTE $64
#define TILELOAD_R11_2   BYTE $0xc4; BYTE $0x82; BYTE $0x7b; BYTE $0x4b; BYTE $0x14; BYTE $0x0b
#define TILELOAD_R1164_3 BYTE $0xc4; BYTE $0x82; BYTE $0x7b; BYTE $0x4b; BYTE $0x5c; BYTE $0x0b; BYTE $64
#define TILELOAD_AX128_2 BYTE $0xc4; BYTE $0xa2; BYTE $0x7b; BYTE $0x4b; BYTE $0x94; BYTE $0x08; LONG $128
#define TILELOAD_AX192_3 BYTE $0xc4; BYTE $0xa2; BYTE $0x7b; BYTE $0x4b; BYTE $0x9c; BYTE $0x08; LONG $192
#define TILESTORE_0_AX    BYTE $0xc4; BYTE $0xa2; BYTE $0x7a; BYTE $0x4b; BYTE $0x04; BYTE $0x08
#define TILESTORE_1_AX64  BYTE $0xc4; BYTE $0xa2; BYTE $0x7a; BYTE $0x4b; BYTE $0x4c; BYTE $0x08; BYTE $64
#define TILESTORE_2_R11   BYTE $0xc4; BYTE $0x82; BYTE $0x7a; BYTE $0x4b; BYTE $0x14; BYTE $0x0b
#define TILESTORE_3_R1164 BYTE $0xc4; BYTE $0x82; BYTE $0x7a; BYTE $0x4b; BYTE $0x5c; BYTE $0x0b; BYTE $64
#define TILESTORE_2_AX128 BYTE $0xc4; BYTE $0xa2; BYTE $0x7a; BYTE $0x4b; BYTE $0x94; BYTE $0x08; LONG $128
#define TILESTORE_3_AX192 BYTE $0xc4; BYTE $0xa2; BYTE $0x7a; BYTE $0x4b; BYTE $0x9c; BYTE $0x08; LONG $192

// TDPBF16PS_d_a_b is tile d += tile a times tile b.
#define TDPBF16PS_0_4_6 BYTE $0xc4; BYTE $0xe2; BYTE $0x4a; BYTE $0x5c; BYTE $0xc4
#define TDPBF16PS_1_4_7 BYTE $0xc4; BYTE $0xe2; BYTE $0x42; BYTE $0x5c; BYTE $0xcc
#define TDPBF16PS_2_5_6 BYTE $0xc4; BYTE $0xe2; BYTE $0x4a; BYTE $0x5c; BYTE $0xd5
#define TDPBF16PS_3_5_7 BYTE $0xc4; BYTE $0xe2; BYTE $0x42; BYTE $0x5c; BYTE $0xdd
#define TDPBF16PS_2_4_5 BYTE $0xc4; BYTE $0xe2; BYTE $0x52; BYTE $0x5c; BYTE $0xd4
#define TDPBF16PS_3_4_6 BYTE $0xc4; BYTE $0xe2; BYTE $0x4a; BYTE $0x5c; BYTE $0xdc

// Bytes: of a panel at AX, both halves of its columns, and the other two sums.
#define TILELOAD_AX_2    BYTE $0xc4; BYTE $0xa2; BYTE $0x7b; BYTE $0x4b; BYTE $0x14; BYTE $0x08
#define TILELOAD_AX64_3  BYTE $0xc4; BYTE $0xa2; BYTE $0x7b; BYTE $0x4b; BYTE $0x5c; BYTE $0x08; BYTE $64
#define TILELOAD_AX_6    BYTE $0xc4; BYTE $0xa2; BYTE $0x7b; BYTE $0x4b; BYTE $0x34; BYTE $0x08
#define TILELOAD_AX64_7  BYTE $0xc4; BYTE $0xa2; BYTE $0x7b; BYTE $0x4b; BYTE $0x7c; BYTE $0x08; BYTE $64
#define TDPBUSD_0_4_6 BYTE $0xc4; BYTE $0xe2; BYTE $0x49; BYTE $0x5e; BYTE $0xc4
#define TDPBUSD_1_4_7 BYTE $0xc4; BYTE $0xe2; BYTE $0x41; BYTE $0x5e; BYTE $0xcc
#define TDPBUSD_2_5_6 BYTE $0xc4; BYTE $0xe2; BYTE $0x49; BYTE $0x5e; BYTE $0xd5
#define TDPBUSD_3_5_7 BYTE $0xc4; BYTE $0xe2; BYTE $0x41; BYTE $0x5e; BYTE $0xdd
#define TDPBUSD_2_4_6 BYTE $0xc4; BYTE $0xe2; BYTE $0x49; BYTE $0x5e; BYTE $0xd4
#define TDPBUSD_3_4_7 BYTE $0xc4; BYTE $0xe2; BYTE $0x41; BYTE $0x5e; BYTE $0xdc

// func amxTiles(a *amxArgs)
TEXT ·amxTiles(SB), NOSPLIT, $24-8
	MOVQ a+0(FP), BX
	MOVQ amxArgs_Config(BX), AX
	LDTILECFG_AX
	MOVQ $64, R8
	MOVQ amxArgs_B(BX), R12
	MOVQ amxArgs_C(BX), R10
	MOVQ amxArgs_From(BX), R15
	MOVQ amxArgs_B2(BX), AX
	MOVQ AX, second-24(SP)
	MOVQ amxArgs_Depth(BX), R13
	ADDQ amxArgs_Depth2(BX), R13
	SHLQ $10, R13              // bytes of a tile row of A
	MOVQ amxArgs_Panels(BX), AX
	MOVQ AX, panels-8(SP)
	CMPQ amxArgs_Pairs(BX), $0
	JEQ  single

panel:
	MOVQ amxArgs_A(BX), SI
	MOVQ amxArgs_Pairs(BX), AX
	MOVQ AX, pairs-16(SP)
	MOVQ R10, CX               // C of the pair
	MOVQ R15, DX               // From of the pair

pair:
	TESTQ R15, R15
	JNE  from
	TILEZERO_0
	TILEZERO_1
	TILEZERO_2
	TILEZERO_3
	JMP  multiply

from:
	MOVQ DX, AX
	MOVQ amxArgs_LDFrom(BX), R9
	MOVQ R9, R11
	SHLQ $4, R11
	ADDQ AX, R11
	TILELOAD_AX_0
	TILELOAD_AX64_1
	TILELOAD_R11_2
	TILELOAD_R1164_3
	SHLQ $5, R9
	ADDQ R9, DX

multiply:
	MOVQ DX, AX                // kept; R9 and R11 are free until the stores
	LEAQ (SI)(R13*1), DX
	MOVQ R12, DI
	MOVQ amxArgs_Depth(BX), R9
	MOVQ amxArgs_Depth2(BX), R11

deep:
	TILELOAD_DI_6
	TILELOAD_SI_4
	TDPBF16PS_0_4_6
	TILELOAD_DI1K_7
	TDPBF16PS_1_4_7
	TILELOAD_DX_5
	TDPBF16PS_2_5_6
	TDPBF16PS_3_5_7
	ADDQ $1024, SI
	ADDQ $1024, DX
	ADDQ $2048, DI
	DECQ R9
	JNE  deep
	MOVQ R11, R9               // the second product, once
	XORQ R11, R11
	MOVQ second-24(SP), DI
	TESTQ R9, R9
	JNE  deep
	MOVQ DX, SI                // the next pair's rows follow
	MOVQ AX, DX
	MOVQ CX, AX
	MOVQ amxArgs_LDC(BX), R9
	MOVQ R9, R11
	SHLQ $4, R11
	ADDQ AX, R11
	TILESTORE_0_AX
	TILESTORE_1_AX64
	TILESTORE_2_R11
	TILESTORE_3_R1164
	SHLQ $5, R9
	ADDQ R9, CX
	DECQ pairs-16(SP)
	JNE  pair
	ADDQ $128, R10
	TESTQ R15, R15
	JEQ  nofrom
	ADDQ $128, R15

nofrom:
	ADDQ amxArgs_Pitch(BX), R12
	MOVQ amxArgs_Pitch2(BX), AX
	ADDQ AX, second-24(SP)
	DECQ panels-8(SP)
	JNE  panel
	TILERELEASE
	RET

// At most 16 rows: two panels at a time, so that four chains are in flight.
single:
	MOVQ amxArgs_LDFrom(BX), CX
	CMPQ panels-8(SP), $2
	JLT  last
	TESTQ R15, R15
	JNE  from2
	TILEZERO_0
	TILEZERO_1
	TILEZERO_2
	TILEZERO_3
	JMP  multiply2

from2:
	MOVQ R15, AX
	MOVQ CX, R9
	TILELOAD_AX_0
	TILELOAD_AX64_1
	TILELOAD_AX128_2
	TILELOAD_AX192_3
	ADDQ $256, R15

multiply2:
	MOVQ amxArgs_A(BX), SI
	MOVQ R12, DI
	MOVQ R12, DX
	ADDQ amxArgs_Pitch(BX), DX
	MOVQ amxArgs_Depth(BX), R11
	MOVQ amxArgs_Depth2(BX), AX

deep2:
	TILELOAD_SI_4
	TILELOAD_DI_6
	TDPBF16PS_0_4_6
	TILELOAD_DI1K_7
	TDPBF16PS_1_4_7
	TILELOAD_DX_5
	TDPBF16PS_2_4_5
	TILELOAD_DX1K_6
	TDPBF16PS_3_4_6
	ADDQ $1024, SI
	ADDQ $2048, DI
	ADDQ $2048, DX
	DECQ R11
	JNE  deep2
	MOVQ AX, R11
	XORQ AX, AX
	MOVQ second-24(SP), DI
	MOVQ DI, DX
	ADDQ amxArgs_Pitch2(BX), DX
	TESTQ R11, R11
	JNE  deep2
	MOVQ R10, AX
	MOVQ amxArgs_LDC(BX), R9
	TILESTORE_0_AX
	TILESTORE_1_AX64
	TILESTORE_2_AX128
	TILESTORE_3_AX192
	ADDQ $256, R10
	MOVQ amxArgs_Pitch(BX), AX
	LEAQ (R12)(AX*2), R12
	MOVQ amxArgs_Pitch2(BX), AX
	SHLQ $1, AX
	ADDQ AX, second-24(SP)
	SUBQ $2, panels-8(SP)
	JNE  single
	TILERELEASE
	RET

last:
	TESTQ R15, R15
	JNE  from1
	TILEZERO_0
	TILEZERO_1
	JMP  multiply1

from1:
	MOVQ R15, AX
	MOVQ CX, R9
	TILELOAD_AX_0
	TILELOAD_AX64_1

multiply1:
	MOVQ amxArgs_A(BX), SI
	MOVQ R12, DI
	MOVQ amxArgs_Depth(BX), R11
	MOVQ amxArgs_Depth2(BX), DX

deep1:
	TILELOAD_SI_4
	TILELOAD_DI_6
	TDPBF16PS_0_4_6
	TILELOAD_DI1K_7
	TDPBF16PS_1_4_7
	ADDQ $1024, SI
	ADDQ $2048, DI
	DECQ R11
	JNE  deep1
	MOVQ DX, R11
	XORQ DX, DX
	MOVQ second-24(SP), DI
	TESTQ R11, R11
	JNE  deep1
	MOVQ R10, AX
	MOVQ amxArgs_LDC(BX), R9
	TILESTORE_0_AX
	TILESTORE_1_AX64
	TILERELEASE
	RET

// func amxBytes(a *byteArgs)
TEXT ·amxBytes(SB), NOSPLIT, $16-8
	MOVQ a+0(FP), BX
	STMXCSR saved-8(SP)
	MOVL $0x9fc0, flush-16(SP) // as in the generated kernels
	LDMXCSR flush-16(SP)
	MOVQ byteArgs_Config(BX), AX
	LDTILECFG_AX

bytes:
	LEAQ byteArgs_Links(BX), CX
	MOVQ byteArgs_From(BX), R10
	MOVQ byteArgs_LDFrom(BX), R12

link:
	MOVQ byteOperands_A(CX), SI
	MOVQ byteOperands_RS(CX), R8
	MOVQ byteOperands_B(CX), AX
	MOVQ byteOperands_Depth(CX), R13
	ADDQ $3, R13
	SHRQ $2, R13               // groups of 64
	XORQ R9, R9                // all rows begin with the same sums
	TILELOAD_AX_0
	TILELOAD_AX64_1
	CMPQ byteArgs_Rows(BX), $16
	JLE  few
	TILELOAD_AX_2
	TILELOAD_AX64_3
	MOVQ R8, DX
	SHLQ $4, DX
	ADDQ SI, DX
	MOVQ $128, R9
	ADDQ R9, AX

group:
	TILELOAD_SI_4
	TILELOAD_AX_6
	TDPBUSD_0_4_6
	TILELOAD_AX64_7
	TDPBUSD_1_4_7
	TILELOAD_DX_5
	TDPBUSD_2_5_6
	TDPBUSD_3_5_7
	ADDQ $64, SI
	ADDQ $64, DX
	ADDQ $2048, AX
	DECQ R13
	JNE  group
	JMP  sums

// At most 16 rows: the groups by turns to two pairs of sums, so that four chains are in flight.
few:
	TILEZERO_2
	TILEZERO_3
	MOVQ $128, R9
	ADDQ R9, AX

turn:
	TILELOAD_SI_4
	TILELOAD_AX_6
	TDPBUSD_0_4_6
	TILELOAD_AX64_7
	TDPBUSD_1_4_7
	ADDQ $64, SI
	ADDQ $2048, AX
	DECQ R13
	JEQ  sums
	TILELOAD_SI_4
	TILELOAD_AX_6
	TDPBUSD_2_4_6
	TILELOAD_AX64_7
	TDPBUSD_3_4_7
	ADDQ $64, SI
	ADDQ $2048, AX
	DECQ R13
	JNE  turn

sums:
	MOVQ byteArgs_Sums(BX), AX
	LEAQ 2048(AX), R11
	TILESTORE_0_AX
	TILESTORE_1_AX64
	TILESTORE_2_R11
	TILESTORE_3_R1164
	MOVQ byteOperands_ScaleB(CX), DX
	VMOVUPS (DX), Z4
	VMOVUPS 64(DX), Z5
	ADDQ R9, byteOperands_ScaleB(CX)
	MOVQ byteOperands_Pitch(CX), DX
	ADDQ DX, byteOperands_B(CX)
	MOVQ byteOperands_ScaleA(CX), SI
	MOVQ byteArgs_C(BX), DI
	MOVQ byteArgs_LDC(BX), R8
	MOVQ byteArgs_Rows(BX), R13

row:
	VMOVDQU32 (AX), Z0
	VMOVDQU32 64(AX), Z1
	CMPQ byteArgs_Rows(BX), $16
	JGT  scale
	VPADDD 2048(AX), Z0, Z0
	VPADDD 2112(AX), Z1, Z1

scale:
	VBROADCASTSS (SI), Z2
	VMULPS Z4, Z2, Z3
	VCVTDQ2PS Z0, Z0
	VMULPS Z3, Z0, Z0
	VADDPS (R10), Z0, Z0
	VMOVUPS Z0, (DI)
	VMULPS Z5, Z2, Z3
	VCVTDQ2PS Z1, Z1
	VMULPS Z3, Z1, Z1
	VADDPS 64(R10), Z1, Z1
	VMOVUPS Z1, 64(DI)
	ADDQ R9, AX
	ADDQ $4, SI
	ADDQ R12, R10
	ADDQ R8, DI
	DECQ R13
	JNE  row
	ADDQ $byteOperands__size, CX
	LEAQ (byteArgs_Links+2*byteOperands__size)(BX), DX
	CMPQ CX, DX
	JEQ  next
	CMPQ byteOperands_Depth(CX), $0
	JEQ  next
	MOVQ byteArgs_C(BX), R10
	MOVQ byteArgs_LDC(BX), R12
	JMP  link

next:
	ADDQ R9, byteArgs_C(BX)
	MOVQ byteArgs_FromStep(BX), DX
	ADDQ DX, byteArgs_From(BX)
	DECQ byteArgs_Panels(BX)
	JNE  bytes
	TILERELEASE
	LDMXCSR saved-8(SP)
	VZEROUPPER
	RET
