//go:build !purego

package simd

import "golang.org/x/sys/cpu"

// AMX multiplies a tile of A by one of B and adds to 16 by 16 float32 sums.
//
// Tiles belong to the thread, so each call configures, uses and releases them; nothing is
// live across Go code.
const tileWork = 2048 // groups of four products of one call, about 60 microseconds

// amxArgs is C = From + A·B for Pairs times 32 rows, or for up to 16 rows if Pairs is 0,
// and Panels times 32 columns. LDC, LDFrom and Pitch count bytes. The rows of the last
// pair, or of a single tile, are in Config.
type amxArgs struct {
	Config        *tileConfig
	A             *uint16
	B             *uint16
	C, From       *float32
	LDC, LDFrom   int
	Depth         int // groups of 32 k
	Pairs, Panels int
	Pitch         int
	B2            *uint16 // of a second product, whose A follows in each tile
	Depth2        int     // 0: none
	Pitch2        int
}

//go:noescape
func amxTiles(a *amxArgs)

// amxBytes is byteTiles of up to 32 rows.
//
//go:noescape
func amxBytes(a *byteArgs)

type tileConfig struct {
	palette byte
	_       [15]byte
	columns [16]uint16 // bytes of a row
	rows    [16]byte
}

// tileConfigs is the configurations by the rows of the last pair, 1 to 32.
var tileConfigs = func() (all [33]tileConfig) {
	for rows := 1; rows <= 32; rows++ {
		c := &all[rows]
		c.palette = 1
		for i := range 8 {
			c.columns[i], c.rows[i] = 64, 16
		}
		if rows <= tileRows {
			for i := range 5 {
				c.rows[i] = byte(rows)
			}
		} else {
			c.rows[2], c.rows[3], c.rows[5] = byte(rows-16), byte(rows-16), byte(rows-16)
		}
	}
	return all
}()

// amxBlocks is the products of bfloat16 by tiles.
var amxBlocks = Blocks{
	Link: tileLink, Rows: tileRows, PackA: packTilesA, PackB: packTilesB, Run: amxRun,
}

func amxRun(p *BlockArgs) {
	a := amxArgs{LDC: 4 * p.LDC, LDFrom: 4 * p.LDFrom, Depth: tilesOf(p.K), Pitch: 2 * p.Pitch, Depth2: tilesOf(p.K2), Pitch2: 2 * p.Pitch2}
	depth := a.Depth + a.Depth2
	for r := 0; r < p.M; {
		rows := p.M - r
		a.Pairs = rows / 32
		a.Config = &tileConfigs[32]
		switch {
		case a.Pairs > 0:
			a.Pairs = min(a.Pairs, max(1, tileWork/depth))
			rows = 32 * a.Pairs
		case rows > tileRows:
			a.Pairs, a.Config = 1, &tileConfigs[rows]
		default:
			a.Config = &tileConfigs[rows]
		}
		a.A = &p.A[r/tileRows*depth*tileSize]
		most := max(1, tileWork/(depth*max(1, a.Pairs)))
		whole := p.N / 32
		for j := 0; j < whole; j += a.Panels {
			a.Panels = min(most, whole-j)
			_ = p.C[(r+rows-1)*p.LDC+32*(j+a.Panels)-1]
			a.C, a.From = &p.C[r*p.LDC+32*j], nil
			if p.From != nil {
				a.From = &p.From[r*p.LDFrom+32*j]
			}
			p.aim(&a, j)
			amxTiles(&a)
		}
		if rest := p.N % 32; rest > 0 {
			p.edge(a, r, rows, whole, rest)
		}
		r += rows
	}
}

// aim sets the panels of B from one on.
func (p *BlockArgs) aim(a *amxArgs, panel int) {
	a.B = &p.B[panel*p.Pitch]
	if p.K2 > 0 {
		a.B2 = &p.B2[panel*p.Pitch2]
	}
}

// edge computes the columns that fill no panel, in memory of its own.
func (p *BlockArgs) edge(a amxArgs, r, rows, panel, n int) {
	var c [32 * 32]float32
	pairs := a.Pairs
	p.aim(&a, panel)
	for done := 0; done < rows; done += 32 {
		m := min(32, rows-done)
		if a.From = nil; p.From != nil {
			for i := range m {
				copy(c[32*i:32*i+n], p.From[(r+done+i)*p.LDFrom+32*panel:])
			}
			a.From = &c[0]
		}
		a.C, a.LDC, a.LDFrom, a.Panels, a.Pairs = &c[0], 128, 128, 1, min(pairs, 1)
		a.A = &p.A[(r+done)/tileRows*(a.Depth+a.Depth2)*tileSize]
		amxTiles(&a)
		for i := range m {
			copy(p.C[(r+done+i)*p.LDC+32*panel:][:n], c[32*i:])
		}
	}
}

// hasAMX reports whether the processor has tiles of bfloat16 and the system lets the
// process use them.
func hasAMX() bool {
	x := &cpu.X86
	return x.HasAMXTile && x.HasAMXBF16 && x.HasAVX512BF16 && permitTiles()
}
