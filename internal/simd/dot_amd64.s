//go:build !purego

#include "go_asm.h"
#include "textflag.h"

// VDPBF16PS Za, Zb, Zc, which the assembler does not know: each sum in Zc += the product of the
// odd elements of a pair of Zb and Za, and then that of the even ones. Registers are numbers.
#define DOT(a, b, c) \
	BYTE $0x62; \
	BYTE $(0x02|((((31-(c))>>3)&1)<<7)|((((31-(a))>>4)&1)<<6)|((((31-(a))>>3)&1)<<5)|((((31-(c))>>4)&1)<<4)); \
	BYTE $(0x06|(((31-(b))&15)<<3)); \
	BYTE $(0x40|((((31-(b))>>4)&1)<<3)); \
	BYTE $0x52; \
	BYTE $(0xc0|(((c)&7)<<3)|((a)&7))

// A pair of row r of A times one panel, or two.
#define ROW(r) VPBROADCASTD (64*r)(SI), Z20; DOT(20, 16, 2*r); DOT(20, 17, 2*r+1)
#define WIDE(r) ROW(r); DOT(20, 18, 8+2*r); DOT(20, 19, 9+2*r)

// All pairs, by tiles of 16.
#define LOOP(tile, pair, columns, rows) \
tile: \
	MOVQ $16, R11; \
	CMPQ R13, R11; \
	CMOVQLT R13, R11; \
	SUBQ R11, R13; \
pair: \
	columns; \
	rows; \
	ADDQ $4, SI; \
	ADDQ $64, DI; \
	DECQ R11; \
	JNE pair; \
	ADDQ $960, SI; \
	ADDQ $1024, DI; \
	TESTQ R13, R13; \
	JNE tile

#define PANEL VMOVDQU32 (DI), Z16; VMOVDQU32 1024(DI), Z17
#define PANELS PANEL; VMOVDQU32 (DI)(R12*1), Z18; VMOVDQU32 1024(DI)(R12*1), Z19
#define ONE(tile, pair, rows) LOOP(tile, pair, PANEL, rows); JMP store
#define TWO(tile, pair, rows) LOOP(tile, pair, PANELS, rows); JMP storewide

// A row of From, or of C, and whether there are more.
#define LOAD(z0, z1) VMOVUPS.Z (AX), K1, z0; VMOVUPS.Z 64(AX), K2, z1
#define LOADWIDE(z0, z1) VMOVUPS.Z 128(AX), K3, z0; VMOVUPS.Z 192(AX), K4, z1
#define STORE(z0, z1) VMOVUPS z0, K1, (AX); VMOVUPS z1, K2, 64(AX)
#define STOREWIDE(z0, z1) VMOVUPS z0, K3, 128(AX); VMOVUPS z1, K4, 192(AX)
#define NEXT(end) ADDQ R9, AX; DECQ CX; JEQ end

// func dotTile(a *dotArgs)
TEXT ·dotTile(SB), NOSPLIT, $0-8
	MOVQ a+0(FP), BX
	MOVQ dotArgs_A(BX), SI
	MOVQ dotArgs_B(BX), DI
	MOVQ dotArgs_Pitch(BX), R12
	MOVQ dotArgs_Pairs(BX), R13
	MOVQ dotArgs_Rows(BX), CX
	MOVQ dotArgs_Mask(BX), DX
	KMOVW DX, K1
	SHRQ $16, DX
	KMOVW DX, K2
	SHRQ $16, DX
	KMOVW DX, K3
	MOVQ DX, R8                // not 0 with two panels
	SHRQ $16, DX
	KMOVW DX, K4
	MOVQ dotArgs_LDFrom(BX), R9
	MOVQ dotArgs_From(BX), AX
	TESTQ AX, AX
	JNE  from
	VPXORD Z0, Z0, Z0
	VPXORD Z1, Z1, Z1
	VPXORD Z2, Z2, Z2
	VPXORD Z3, Z3, Z3
	VPXORD Z4, Z4, Z4
	VPXORD Z5, Z5, Z5
	VPXORD Z6, Z6, Z6
	VPXORD Z7, Z7, Z7
	VPXORD Z8, Z8, Z8
	VPXORD Z9, Z9, Z9
	VPXORD Z10, Z10, Z10
	VPXORD Z11, Z11, Z11
	VPXORD Z12, Z12, Z12
	VPXORD Z13, Z13, Z13
	VPXORD Z14, Z14, Z14
	VPXORD Z15, Z15, Z15
	JMP  multiply

from:
	TESTQ R8, R8
	JNE  fromwide
	LOAD(Z0, Z1)
	NEXT(multiply)
	LOAD(Z2, Z3)
	NEXT(multiply)
	LOAD(Z4, Z5)
	NEXT(multiply)
	LOAD(Z6, Z7)
	NEXT(multiply)
	LOAD(Z8, Z9)
	NEXT(multiply)
	LOAD(Z10, Z11)
	NEXT(multiply)
	LOAD(Z12, Z13)
	NEXT(multiply)
	LOAD(Z14, Z15)
	JMP  multiply

fromwide:
	LOAD(Z0, Z1)
	LOADWIDE(Z8, Z9)
	NEXT(multiply)
	LOAD(Z2, Z3)
	LOADWIDE(Z10, Z11)
	NEXT(multiply)
	LOAD(Z4, Z5)
	LOADWIDE(Z12, Z13)
	NEXT(multiply)
	LOAD(Z6, Z7)
	LOADWIDE(Z14, Z15)

multiply:
	MOVQ dotArgs_Rows(BX), CX
	TESTQ R8, R8
	JNE  wide
	CMPQ CX, $7
	JGT  tile8
	JEQ  tile7
	CMPQ CX, $5
	JGT  tile6
	JEQ  tile5
	CMPQ CX, $3
	JGT  tile4
	JEQ  tile3
	CMPQ CX, $1
	JGT  tile2
	ONE(tile1, pair1, ROW(0))
	ONE(tile2, pair2, ROW(0); ROW(1))
	ONE(tile3, pair3, ROW(0); ROW(1); ROW(2))
	ONE(tile4, pair4, ROW(0); ROW(1); ROW(2); ROW(3))
	ONE(tile5, pair5, ROW(0); ROW(1); ROW(2); ROW(3); ROW(4))
	ONE(tile6, pair6, ROW(0); ROW(1); ROW(2); ROW(3); ROW(4); ROW(5))
	ONE(tile7, pair7, ROW(0); ROW(1); ROW(2); ROW(3); ROW(4); ROW(5); ROW(6))
	ONE(tile8, pair8, ROW(0); ROW(1); ROW(2); ROW(3); ROW(4); ROW(5); ROW(6); ROW(7))

wide:
	CMPQ CX, $3
	JGT  widetile4
	JEQ  widetile3
	CMPQ CX, $1
	JGT  widetile2
	TWO(widetile1, widepair1, WIDE(0))
	TWO(widetile2, widepair2, WIDE(0); WIDE(1))
	TWO(widetile3, widepair3, WIDE(0); WIDE(1); WIDE(2))
	TWO(widetile4, widepair4, WIDE(0); WIDE(1); WIDE(2); WIDE(3))

store:
	MOVQ dotArgs_C(BX), AX
	MOVQ dotArgs_LDC(BX), R9
	STORE(Z0, Z1)
	NEXT(done)
	STORE(Z2, Z3)
	NEXT(done)
	STORE(Z4, Z5)
	NEXT(done)
	STORE(Z6, Z7)
	NEXT(done)
	STORE(Z8, Z9)
	NEXT(done)
	STORE(Z10, Z11)
	NEXT(done)
	STORE(Z12, Z13)
	NEXT(done)
	STORE(Z14, Z15)
	JMP  done

storewide:
	MOVQ dotArgs_C(BX), AX
	MOVQ dotArgs_LDC(BX), R9
	STORE(Z0, Z1)
	STOREWIDE(Z8, Z9)
	NEXT(done)
	STORE(Z2, Z3)
	STOREWIDE(Z10, Z11)
	NEXT(done)
	STORE(Z4, Z5)
	STOREWIDE(Z12, Z13)
	NEXT(done)
	STORE(Z6, Z7)
	STOREWIDE(Z14, Z15)

done:
	VZEROUPPER
	RET
