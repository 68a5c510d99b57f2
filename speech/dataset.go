package speech

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// Dataset loads batches of utterances. Its methods other than Keep may be called
// concurrently.
type Dataset struct {
	*Frontend
	List   []Utterance
	Labels [][]int32 // [utterance] its classes; nil: none

	frames []int    // number of frames of each utterance, without augmentation
	sums   []uint64 // hashes of these frames
	store  *features

	filtering sync.Mutex
	filters   map[int]*audio.Resampler // to the features' rate, by rate
}

// StepCounts returns the number of steps of the network for each utterance,
// without augmentation.
func (d *Dataset) StepCounts() []int {
	steps := make([]int, len(d.frames))
	for i, n := range d.frames {
		steps[i] = d.setup.steps(n)
	}
	return steps
}

// steps returns the number of steps of the network for a number of frames.
func (c *Setup) steps(frames int) int { return (frames + c.skip() - 1) / c.skip() }

// Duration returns the length of utterance i in seconds.
func (d *Dataset) Duration(i int) float64 { return d.Seconds(d.frames[i]) }

// Keep removes the utterances for which keep returns false.
func (d *Dataset) Keep(keep func(i int) bool) {
	n := 0
	for i := range d.List {
		if keep(i) {
			d.List[n], d.frames[n], d.sums[n] = d.List[i], d.frames[i], d.sums[i]
			n++
		}
	}
	d.List, d.frames, d.sums = d.List[:n], d.frames[:n], d.sums[:n]
}

// sounded reports whether the file of utterance i is sound, not features.
func (d *Dataset) sounded(i int) bool { return !IsFeatures(d.List[i].Audio) }

// framesOf returns the features of an utterance [frames,Width] before deltas and
// normalisation. The slice must not be changed.
func (d *Dataset) framesOf(i int) ([]float32, error) {
	return d.store.of(d.setup, d.List[i].Audio, d.Width)
}

// open reads all utterances once: it sets rate and width, finds every file that
// cannot be read, and counts and hashes frames.
func (d *Dataset) open(ctx context.Context) ([]fault, error) {
	if faults, err := d.settleWidth(); len(faults) > 0 || err != nil {
		return faults, err
	}
	n := len(d.List)
	d.frames, d.sums = make([]int, n), make([]uint64, n)
	errs := make([]error, n)
	par.For(n, 1, d, func(_ *Dataset, a, b int) {
		for i := a; i < b && ctx.Err() == nil; i++ {
			var frames []float32
			frames, errs[i] = d.framesOf(i)
			d.frames[i], d.sums[i] = len(frames)/d.Width, sumNumbers(frames)
		}
	})
	return d.faults(errs), ctx.Err()
}

// settleWidth sets rate and width, if they are not known, from the first
// utterance that can be read. If there is none it returns the faults of all.
func (d *Dataset) settleWidth() ([]fault, error) {
	if d.Width > 0 || len(d.List) == 0 {
		return nil, nil
	}
	errs := make([]error, len(d.List))
	for i, u := range d.List {
		var sound *audio.Sound
		switch {
		case !d.sounded(i):
			_, d.Width, errs[i] = readFeatures(u.Audio, d.mfcWidth(u.Audio))
		case d.setup.Rate == 0:
			if sound, errs[i] = audio.Read(u.Audio); errs[i] == nil {
				d.setup.Rate = min(sound.Rate, 16000)
			}
		}
		if errs[i] != nil {
			continue
		}
		if d.sounded(i) {
			spec := d.setup.Spec()
			if err := spec.Check(); err != nil {
				return nil, data.Errorf("%w", err)
			}
			d.Width = spec.Width()
		}
		return nil, nil
	}
	return d.faults(errs), nil
}

// mfcWidth returns the features per frame of a .mfc file, which does not contain
// it; 0 for other files.
func (d *Dataset) mfcWidth(path string) int {
	if isMFC(path) {
		return d.setup.Coefficients
	}
	return 0
}

// fault is an utterance that cannot be used, with the reason.
type fault struct {
	u   *Utterance
	err error
}

// faults returns the utterances whose error is not nil.
func (d *Dataset) faults(errs []error) []fault {
	var list []fault
	for i, err := range errs {
		if err != nil {
			list = append(list, fault{&d.List[i], err})
		}
	}
	return list
}

// gather joins the errors of single files into one *data.InputError; an error of
// another type is returned as it is.
func gather(faults []fault) error {
	if len(faults) == 0 {
		return nil
	}
	first := faults[0]
	var input *data.InputError
	switch {
	case !errors.As(first.err, &input) || first.u.File == "":
		return first.err
	case len(faults) == 1:
		return &data.InputError{File: first.u.File, Line: first.u.Line, Problem: first.err.Error()}
	}
	var texts []string
	for _, f := range faults {
		place := fmt.Sprintf("line %d", f.u.Line)
		if f.u.File != first.u.File {
			place = f.u.File + ", " + place
		}
		texts = append(texts, fmt.Sprintf("%v (%s)", f.err, place))
	}
	return &data.InputError{File: first.u.File, Problem: fmt.Sprintf("%d files cannot be used: %s", len(texts), report.Listing(texts))}
}

// measure computes the statistics for normalisation over more than one utterance,
// from at most 2000 utterances.
func (d *Dataset) measure(ctx context.Context) error {
	if d.setup.Normalize != "global" && d.setup.Normalize != "running" {
		return nil
	}
	width := d.Width * (d.setup.Deltas + 1)
	m := newMoments(width)
	for i := 0; i < len(d.List); i += 1 + len(d.List)/2000 {
		frames, err := d.framesOf(i)
		if err := cmp.Or(err, ctx.Err()); err != nil {
			return err
		}
		slopes := deltas{width: d.Width, order: d.setup.Deltas}
		for f := range slices.Chunk(slopes.run(nil, frames, true), width) {
			m.add(f)
		}
	}
	d.Statistics = m.statistics()
	return nil
}

// Load fills a batch with utterances. samples are utterance numbers plus
// multiples of len(List); with augment each such number has its own random
// augmentation. The errors are those of reading the files: a *data.InputError for
// one that cannot be used.
func (d *Dataset) Load(b *Batch, samples []int, augment bool) error {
	features, labels := make([][]float32, len(samples)), make([][]int32, len(samples))
	for k, s := range samples {
		i := s % len(d.List)
		var r *rand.Rand
		if augment {
			r = rand.New(rand.NewPCG(d.setup.Seed^0x73706565636821, uint64(s)))
		}
		var err error
		if features[k], err = d.features(i, r); err != nil {
			return err
		}
		if d.Labels != nil {
			labels[k] = d.Labels[i]
		}
	}
	b.fill(features, labels, d.Inputs())
	return nil
}

// First returns a batch of the first rows utterances, or of all if there are
// fewer, without augmentation. The errors are those of [Dataset.Load].
func (d *Dataset) First(rows int) (*Batch, error) {
	samples := make([]int, min(rows, len(d.List)))
	for i := range samples {
		samples[i] = i
	}
	b := &Batch{}
	return b, d.Load(b, samples, false)
}

// Each runs a network over all utterances, in batches of similar length, and calls part
// with each batch, its utterances' numbers and its logits, which are valid until part
// returns, and use with the numbers and what part returned. The context's ranks share
// this as [train.Share] describes, with the errors of that, of [Dataset.Load] and of a
// cancelled ctx. The tape's mode should be Infer.
func Each[T train.Number](ctx context.Context, t *tensor.Tape, n *Network, d *Dataset, part func(samples []int, b *Batch, logits *tensor.Tensor) []T, use func(samples []int, result []T)) error {
	b := &Batch{}
	batches := train.NewBuckets(d.StepCounts(), d.setup.batchSteps(), 2*d.setup.Batch, 0).InOrder()
	return train.Share(ctx, len(batches), func(_ context.Context, i int) ([]T, error) {
		if err := d.Load(b, batches[i], false); err != nil {
			return nil, err
		}
		t.Reset()
		logits, _ := n.Forward(b.Input(t), nil)
		return part(batches[i], b, logits), nil
	}, func(i int, result []T) error {
		use(batches[i], result)
		return nil
	})
}

// batchSteps returns the largest number of steps of a batch, with padding.
func (c *Setup) batchSteps() int { return max(1, int(c.BatchTime/c.StepSeconds())) }

// features returns the steps of utterance i for the network [steps,Inputs]; with
// r they are augmented.
func (d *Dataset) features(i int, r *rand.Rand) ([]float32, error) {
	frames, err := d.framesOf(i)
	if err != nil {
		return nil, err
	}
	c := d.setup
	if r == nil {
		return d.Steps(frames), nil
	}
	if !d.sounded(i) && c.Speed > 0 {
		frames = stretch(frames, d.Width, 1+c.Speed*(2*r.Float64()-1))
	}
	if d.sounded(i) && (c.Speed > 0 || c.Gain > 0 || c.Noise > 0) {
		if frames, err = d.disturbed(i, r); err != nil {
			return nil, err
		}
	}
	f := d.Pipeline()
	width := d.Width * (c.Deltas + 1)
	full := f.deltas.run(nil, frames, true)
	f.norm.apply(full)
	mask(full, width, d.Width, c, r)
	return f.stack.run(nil, full, true), nil
}

// stretch changes the tempo of frames by a factor, with linear interpolation.
func stretch(frames []float32, width int, tempo float64) []float32 {
	n := len(frames) / width
	m := max(1, int(math.Round(float64(n)/tempo)))
	out := make([]float32, 0, m*width)
	for t := range m {
		x := min(float64(t)*tempo, float64(n-1))
		k := min(int(x), n-1)
		a, b := frames[k*width:(k+1)*width], frames[min(k+1, n-1)*width:]
		w := float32(x - float64(k))
		for i, v := range a {
			out = append(out, v+w*(b[i]-v))
		}
	}
	return out
}

// speeds is the number of different speeds of a sound; each needs a filter.
const speeds = 5

// disturbed returns the features of a sound with another speed, another loudness
// and added noise.
func (d *Dataset) disturbed(i int, r *rand.Rand) ([]float32, error) {
	s, err := audio.Read(d.List[i].Audio)
	if err != nil {
		return nil, err
	}
	rate := int(float64(s.Rate) * (1 + d.setup.Speed*(2*float64(r.IntN(speeds))/(speeds-1)-1)))
	s.Samples = d.resampled(s.Samples, rate, d.setup.Rate)
	s.Rate = d.setup.Rate
	return audio.Extract(disturb(s, d.setup, r), d.setup.Spec()), nil
}

// resampled changes the sample rate of x. The filters are kept, since making one
// takes longer than using it.
func (d *Dataset) resampled(x []float32, from, to int) []float32 {
	d.filtering.Lock()
	defer d.filtering.Unlock()
	f := d.filters[from]
	if f == nil {
		if d.filters == nil || len(d.filters) > 100 {
			d.filters = map[int]*audio.Resampler{}
		}
		f = audio.NewResampler(from, to)
		d.filters[from] = f
	}
	f.Reset()
	return f.Flush(f.Write(nil, x))
}

// disturb changes the loudness and adds noise.
func disturb(s *audio.Sound, c *Setup, r *rand.Rand) *audio.Sound {
	out := &audio.Sound{Rate: s.Rate, Samples: slices.Clone(s.Samples)}
	gain := float64(float32(math.Pow(10, c.Gain*(2*r.Float64()-1)/20)))
	var power float64
	for i := range out.Samples {
		x := simd.Narrow(float64(out.Samples[i]) * gain)
		out.Samples[i] = x
		power += float64(x) * float64(x)
	}
	if c.Noise == 0 || r.IntN(2) == 0 {
		return out
	}
	// The ratio is up to 20 dB above Noise.
	ratio := c.Noise + 20*r.Float64()
	amplitude := math.Sqrt(power/float64(max(len(out.Samples), 1))) * math.Pow(10, -ratio/20)
	for i := range out.Samples {
		noise := simd.Narrow(amplitude * r.NormFloat64())
		out.Samples[i] = simd.Narrow(float64(out.Samples[i]) + float64(noise))
	}
	return out
}

// mask sets intervals of time and ranges of bands to zero, the mean (SpecAugment,
// Park et al. 2019). A frame has the bands and then their deltas.
func mask(frames []float32, width, bands int, c *Setup, r *rand.Rand) {
	n := len(frames) / width
	for range c.TimeMasks {
		length := int(r.Float64() * (c.TimeMask*float64(n) + 1))
		at := r.IntN(max(n-length, 0) + 1)
		clear(frames[at*width : min(at+length, n)*width])
	}
	for range c.BandMasks {
		length := int(r.Float64() * (c.BandMask*float64(bands) + 1))
		at := r.IntN(max(bands-length, 0) + 1)
		for f := range slices.Chunk(frames, width) {
			for part := range slices.Chunk(f, bands) {
				clear(part[at:min(at+length, bands)])
			}
		}
	}
}
