package device

import "math"

// The generator of masks is SplitMix64 (Steele, Lea and Flood, 2014) with a counter: numbers 2k
// and 2k+1 are the low and the high half of Mix(key + (k+1)·Golden), where the key is MaskKey,
// and an element is dropped if its number is below Threshold. So all backends draw the same
// masks, and that of an element does not depend on the others.

// Golden is 2^64 divided by the golden ratio, odd: SplitMix64's increment.
const Golden = 0x9E3779B97F4A7C15

// Mix computes SplitMix64's output function, a bijection (Stafford's variant 13).
func Mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// MaskKey returns the generator's key for a node in a step.
func MaskKey(seed, step, node uint64) uint64 {
	return Mix((Mix((Mix(seed+Golden)^step)+Golden) ^ node) + Golden)
}

// The masks of a scan: what is added to its Node.
const (
	DropH = uint64(iota)
	ZoneH
	ZoneC
)

// Threshold returns p·2^32, rounded.
func Threshold(p float32) uint64 { return uint64(math.Round(float64(p) * (1 << 32))) }

// KeepFactor returns 1/(1-p), by which dropout multiplies what it keeps.
func KeepFactor(p float32) float32 { return float32(1 / (1 - float64(p))) }
