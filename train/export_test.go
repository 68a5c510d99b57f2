package train

import "github.com/carousel-ml/carousel/tensor"

// Checksum is that of a checkpoint.
var Checksum = checksum

// SetBucket makes gradients travel between ranks in buckets of size numbers.
func SetBucket(o *Options, size int) { o.bucket = size }

// Reduce sums a slab's gradients with those of the other ranks in steps; prepare sets
// them and says whether this rank has no batch.
func Reduce(slab *tensor.Slab, o *Options, steps int, prepare func(step int) (idle bool)) error {
	r := newReducer(slab, o)
	r.start()
	defer r.stop()
	for step := range steps {
		idle := prepare(step)
		r.begin()
		r.idle = idle
		for i := range slab.Params { // another order than the first one, of which parts are not contiguous
			lo, _ := slab.Range((i + len(slab.Params)/2) % len(slab.Params))
			r.ready(lo)
		}
		if err := r.finish(); err != nil {
			return err
		}
	}
	return nil
}
