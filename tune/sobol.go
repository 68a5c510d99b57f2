package tune

import (
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// sobol visits the points of Sobol's sequence (1967) in order, scrambled by the study's seed as Owen
// (1995) does: the more trials there are, the finer they cover the space, evenly in every
// projection on few parameters. Parameters after the 64th are drawn at random.
type sobol struct{}

func (sobol) sample(k *knowledge) Values { return k.sobol((*Param).At) }

// sobolPoints are looked at to find one that is fresh.
const sobolPoints = 1 << 14

// sobol returns the values that of makes of the first point whose values are fresh, and random ones if there is none.
func (k *knowledge) sobol(of func(p *Param, u float64) any) Values {
	for n := uint32(0); n < sobolPoints && k.try == 0; n++ {
		v := k.space.Build(func(p *Param, _ Values) any {
			j := slices.Index(k.space.Params, p) // the same dimension, whatever else is used
			if j >= len(directions) {
				return of(p, k.rand.Float64())
			}
			return of(p, sobolAt(k.seed, n, j))
		})
		if k.fresh(v) {
			return v
		}
	}
	return uniform{}.sample(k)
}

// sobolAt returns coordinate j, below 64, of point n of the sequence that a seed scrambles, in [0,1).
func sobolAt(seed uint64, n uint32, j int) float64 {
	return float64(scramble(seed+uint64(j)*0x9e3779b97f4a7c15, sobolBits(n, j))) / (1 << 32)
}

func sobolBits(n uint32, j int) (x uint32) {
	for ; n != 0; n &= n - 1 {
		x ^= directions[j][bits.TrailingZeros32(n)]
	}
	return x
}

// scramble is a nested uniform scramble: it turns each bit over or not at random, by the bits above it.
func scramble(seed uint64, x uint32) (y uint32) {
	for b := range 32 {
		above := uint64(x>>(31-b)>>1) | 1<<(b+32) // and how many they are
		y |= (x ^ uint32(mix(seed^mix(above)))<<(31-b)) & (1 << (31 - b))
	}
	return y
}

// mix makes a random number of another one, as splitmix64 (Steele et al. 2014) does.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// joeKuo are the primitive polynomials, as the bits of their coefficients, and the initial direction
// numbers of dimensions 2 to 64: the file new-joe-kuo-6 of Joe & Kuo, Constructing Sobol sequences with
// better two-dimensional projections, SIAM J. Sci. Comput. 30, 2008.
const joeKuo = `
3:1 7:1,3 11:1,3,1 13:1,1,1 19:1,1,3,3 25:1,3,5,13 37:1,1,5,5,17 41:1,1,5,5,5 47:1,1,7,11,19 55:1,1,5,1,1
59:1,1,1,3,11 61:1,3,5,5,31 67:1,3,3,9,7,49 91:1,1,1,15,21,21 97:1,3,1,13,27,49 103:1,1,1,15,7,5
109:1,3,1,15,13,25 115:1,1,5,5,19,61 131:1,3,7,11,23,15,103 137:1,3,7,13,13,15,69 143:1,1,3,13,7,35,63
145:1,3,5,9,1,25,53 157:1,3,1,13,9,35,107 167:1,3,1,5,27,61,31 171:1,1,5,11,19,41,61 185:1,3,5,3,3,13,69
191:1,1,7,13,1,19,1 193:1,3,7,5,13,19,59 203:1,1,3,9,25,29,41 211:1,3,5,13,23,1,55 213:1,3,7,3,13,59,17
229:1,3,1,3,5,53,69 239:1,1,5,5,23,33,13 241:1,1,7,7,1,61,123 247:1,1,7,9,13,61,49 253:1,3,3,5,3,55,33
285:1,3,1,15,31,13,49,245 299:1,3,5,15,31,59,63,97 301:1,3,1,11,11,11,77,249 333:1,3,1,11,27,43,71,9
351:1,1,7,15,21,11,81,45 355:1,3,7,3,25,31,65,79 357:1,3,1,1,19,11,3,205 361:1,1,5,9,19,21,29,157
369:1,3,7,11,1,33,89,185 391:1,3,3,3,15,9,79,71 397:1,3,7,11,15,39,119,27 425:1,1,3,1,11,31,97,225
451:1,1,1,3,23,43,57,177 463:1,3,7,7,17,17,37,71 487:1,3,1,5,27,63,123,213 501:1,1,3,5,11,43,53,133
529:1,3,5,5,29,17,47,173,479 539:1,3,3,11,3,1,109,9,69 545:1,1,1,5,17,39,23,5,343
557:1,3,1,5,25,15,31,103,499 563:1,1,1,11,11,17,63,105,183 601:1,1,5,11,9,29,97,231,363
607:1,1,5,15,19,45,41,7,383 617:1,3,7,7,31,19,83,137,221 623:1,1,1,3,23,15,111,223,83
631:1,1,5,13,31,15,55,25,161 637:1,1,3,13,25,47,39,87,257
`

// directions are the numbers that a point's bits choose from, by dimension and bit.
var directions = sobolDirections()

func sobolDirections() (list [][32]uint32) {
	var first [32]uint32
	for b := range first {
		first[b] = 1 << (31 - b)
	}
	list = append(list, first)
	for _, line := range strings.Fields(joeKuo) {
		head, tail, _ := strings.Cut(line, ":")
		polynomial, _ := strconv.ParseUint(head, 10, 32)
		degree := bits.Len64(polynomial) - 1
		var v [32]uint32
		for b, text := range strings.Split(tail, ",") {
			m, _ := strconv.ParseUint(text, 10, 32)
			v[b] = uint32(m) << (31 - b)
		}
		for b := degree; b < 32; b++ {
			v[b] = v[b-degree] ^ v[b-degree]>>degree
			for c := 1; c < degree; c++ {
				if polynomial>>(degree-c)&1 == 1 {
					v[b] ^= v[b-c]
				}
			}
		}
		list = append(list, v)
	}
	return list
}
