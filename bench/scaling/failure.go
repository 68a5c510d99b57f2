package main

import (
	"math"
	"math/rand/v2"
)

// Failures of a job whose nodes fail independently, each after an exponential time; one ends the job, and
// all ranks go on from the last checkpoint.
type failures struct {
	mean    float64 // seconds between failures of the job: those of a node divided by the nodes
	restart float64 // seconds until the ranks train again
	write   float64 // seconds of a checkpoint, in which all ranks wait for rank 0
	every   float64 // seconds of training between checkpoints
}

// useful is the share of the time that is training which need not be repeated, over so many failures.
func (f *failures) useful(count int, seed uint64) float64 {
	random := rand.New(rand.NewPCG(seed, 7))
	kept, all := 0.0, 0.0
	for range count {
		life := random.ExpFloat64() * f.mean
		whole := math.Floor(life / (f.every + f.write))
		kept += whole * f.every
		all += life + f.restart
	}
	return kept / all
}

// expected is what useful comes to: of the intervals that begin, e^(-(every+write)/mean) are completed.
func (f *failures) expected() float64 {
	interval := f.every + f.write
	return f.every / math.Expm1(interval/f.mean) / (f.mean + f.restart)
}

// best is the interval that keeps most, to 1 % (Young's root of 2·write·mean is its first order).
func (f *failures) best() float64 {
	try := *f
	least, most := math.Log(max(f.write, 1e-3)/10), math.Log(10*f.mean)
	for most-least > 0.01 {
		a, b := least+(most-least)/3, most-(most-least)/3
		var at [2]float64
		for i, x := range []float64{a, b} {
			try.every = math.Exp(x)
			at[i] = try.expected()
		}
		if at[0] > at[1] {
			most = b
		} else {
			least = a
		}
	}
	return math.Exp((least + most) / 2)
}
