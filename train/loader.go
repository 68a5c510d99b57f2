package train

import (
	"math/rand/v2"
	"slices"
)

// loader fills a rank's batches ahead of the training step, in the order drawn
// for all ranks from the seed and the epoch.
type loader[B any] struct {
	full, free chan *batch[B]
	quit, done chan struct{}
	failure    any // the value that Load panicked with; read after full is closed
}

type batch[B any] struct {
	data    *B
	samples int
}

// startLoader starts at the given batch of the given epoch and runs until it is
// stopped. Twice the batches of a step are in flight: one set in training, one
// being filled.
func startLoader[B any](job *Job[B], o *Options, epoch, first int) *loader[B] {
	n := 2 * o.Accumulate
	l := &loader[B]{
		full: make(chan *batch[B], n),
		free: make(chan *batch[B], n),
		quit: make(chan struct{}),
		done: make(chan struct{}),
	}
	for range n {
		l.free <- &batch[B]{data: job.NewBatch()}
	}
	go l.run(job, o, epoch, first)
	return l
}

func (l *loader[B]) run(job *Job[B], o *Options, epoch, first int) {
	defer close(l.done)
	defer func() {
		l.failure = recover()
		close(l.full)
	}()
	list := job.Batches
	if list == nil {
		order := make([]int, job.Samples)
		list = func(epoch int) [][]int {
			shuffle(order, o.Seed, epoch)
			return slices.Collect(slices.Chunk(order, o.Batch))
		}
	}
	rank, ranks := o.world().Rank(), o.world().Size()
	for ; ; epoch++ {
		batches := list(epoch)
		if len(batches) <= rank*o.Accumulate {
			return // no epoch has a batch for this rank
		}
		for i, part := range batches {
			if i < first || i/o.Accumulate%ranks != rank {
				continue
			}
			var b *batch[B]
			select {
			case b = <-l.free:
			case <-l.quit:
				return
			}
			from := o.Timeline.now()
			job.Load(b.data, part)
			o.Timeline.span(trackLoading, "load", from)
			b.samples = len(part)
			l.full <- b
		}
		first = 0
	}
}

// shuffle writes the data order of one epoch.
func shuffle(order []int, seed uint64, epoch int) {
	for i := range order {
		order[i] = i
	}
	// The constant separates this stream from those that initialise weights
	// from the same seed.
	r := rand.New(rand.NewPCG(seed^0x6f72646572, uint64(epoch)))
	r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
}

// next waits for a batch. If Load panicked, next panics with the same value.
func (l *loader[B]) next() *batch[B] {
	b, ok := <-l.full
	if !ok {
		panic(l.failure)
	}
	return b
}

// release gives a batch back to be filled again.
func (l *loader[B]) release(b *batch[B]) { l.free <- b }

// stop ends the goroutine, after any Load in progress.
func (l *loader[B]) stop() {
	close(l.quit)
	<-l.done
}
