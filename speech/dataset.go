package speech

import (
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
)

// mostInMemory bounds the features that a dataset keeps, in numbers; those of
// further utterances are read or computed each time.
const mostInMemory = 400 << 20

// dataset gives the features of utterances.
type dataset struct {
	cfg   *Setup
	width int    // features of a frame before slopes; 0: not known yet
	cache string // directory; "": none
	list  []Utterance
	kept  [][]float32 // by utterance, nil where not kept
	steps []int       // of the network, without augmentation
	stats *statistics

	filtering sync.Mutex
	filters   map[int]*audio.Resampler // to the features' rate, by rate
}

// sounded reports whether the features come from sound and not from files of
// features.
func (d *dataset) sounded(i int) bool { return !isFeatures(d.list[i].Audio) }

// frames is the features of an utterance as they are before slopes and
// normalisation. The slice is not to be changed.
func (d *dataset) frames(i int) ([]float32, error) {
	if d.kept != nil && d.kept[i] != nil {
		return d.kept[i], nil
	}
	return loadFrames(d.cfg, d.list[i].Audio, d.width, d.cache)
}

// loadFrames reads or computes the features of a file.
func loadFrames(c *Setup, path string, width int, cache string) ([]float32, error) {
	if isFeatures(path) {
		frames, _, err := readFeatures(path, width)
		return frames, err
	}
	spec := c.specAt(c.Rate)
	if c.Rate == 0 {
		return nil, &data.InputError{File: path, Problem: "is sound; the model takes files of features", Fix: "give .npy or .mfc files like those it was trained on"}
	}
	if got := spec.Width(); got != width {
		return nil, &data.InputError{File: path, Problem: fmt.Sprintf("is sound, which gives %d features a frame; the model takes files of %d", got, width), Fix: "give .npy or .mfc files like those it was trained on"}
	}
	at := ""
	if cache != "" {
		var err error
		if at, err = cachePath(cache, path, spec); err != nil {
			return nil, err
		}
		if frames, ok := readCache(at, width); ok {
			return frames, nil
		}
	}
	sound, err := audio.Read(path)
	if err != nil {
		return nil, err
	}
	frames := audio.Extract(sound, spec)
	if at != "" {
		if err := writeCache(at, frames, width); err != nil {
			return nil, err
		}
	}
	return frames, nil
}

// open reads all utterances once: it settles rate and width, finds every file
// that cannot be read, counts steps and keeps the features that fit in memory.
func (d *dataset) open() ([]fault, error) {
	if faults, err := d.settleWidth(); len(faults) > 0 || err != nil {
		return faults, err
	}
	n := len(d.list)
	d.kept, d.steps = make([][]float32, n), make([]int, n)
	errs := make([]error, n)
	loaded := make([][]float32, n)
	total := 0
	for lo := 0; lo < n; lo += 256 { // a piece at a time, so that what is not kept is dropped soon
		hi := min(lo+256, n)
		load := func(_ *dataset, a, b int) {
			for i := lo + a; i < lo+b; i++ {
				loaded[i], errs[i] = d.frames(i)
			}
		}
		par.For(hi-lo, 1, d, load)
		for i := lo; i < hi; i++ {
			d.steps[i] = d.cfg.steps(len(loaded[i]) / d.width)
			if total += len(loaded[i]); total <= mostInMemory {
				d.kept[i] = loaded[i]
			}
			loaded[i] = nil
		}
	}
	return d.faults(errs), nil
}

// settleWidth takes rate and width, where they are not known, from the first
// utterance that can be read. If there is none it gives the faults of all.
func (d *dataset) settleWidth() ([]fault, error) {
	if d.width > 0 || len(d.list) == 0 {
		return nil, nil
	}
	errs := make([]error, len(d.list))
	for i, u := range d.list {
		var sound *audio.Sound
		switch {
		case !d.sounded(i):
			_, d.width, errs[i] = readFeatures(u.Audio, d.mfcWidth(u.Audio))
		case d.cfg.Rate == 0:
			if sound, errs[i] = audio.Read(u.Audio); errs[i] == nil {
				d.cfg.Rate = min(sound.Rate, 16000)
			}
		}
		if errs[i] != nil {
			continue
		}
		if d.sounded(i) {
			spec := d.cfg.specAt(d.cfg.Rate)
			if err := spec.Check(); err != nil {
				return nil, data.Errorf("%w", err)
			}
			d.width = spec.Width()
		}
		return nil, nil
	}
	return d.faults(errs), nil
}

// mfcWidth is what a .mfc file does not say of itself.
func (d *dataset) mfcWidth(path string) int {
	if isMFC(path) {
		return d.cfg.Coefficients
	}
	return 0
}

// steps is how many steps of the network so many frames make.
func (c *Setup) steps(frames int) int { return (frames + c.skip() - 1) / c.skip() }

// fault is an utterance that cannot be used.
type fault struct {
	u   *Utterance
	err error
}

// faults are those of the utterances whose error is not nil.
func (d *dataset) faults(errs []error) []fault {
	var list []fault
	for i, err := range errs {
		if err != nil {
			list = append(list, fault{&d.list[i], err})
		}
	}
	return list
}

// gather makes one error of those of single files.
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
	return &data.InputError{File: first.u.File, Problem: fmt.Sprintf("%d files cannot be used: %s", len(texts), some(texts))}
}

// measure takes the statistics that normalisation over more than one utterance
// needs, of at most 2000 utterances.
func (d *dataset) measure() error {
	if d.cfg.Normalize != "global" && d.cfg.Normalize != "running" {
		return nil
	}
	width := d.width * (d.cfg.Deltas + 1)
	m := newMoments(width)
	for i := 0; i < len(d.list); i += 1 + len(d.list)/2000 {
		frames, err := d.frames(i)
		if err != nil {
			return err
		}
		slopes := deltas{width: d.width, order: d.cfg.Deltas}
		for f := range slices.Chunk(slopes.run(nil, frames, true), width) {
			m.add(f)
		}
	}
	d.stats = m.statistics()
	return nil
}

// features is an utterance's steps for the network. With r it is augmented.
func (d *dataset) features(i int, r *rand.Rand) ([]float32, error) {
	frames, err := d.frames(i)
	if err != nil {
		return nil, err
	}
	c := d.cfg
	if r == nil {
		return newFrontend(c, d.width, d.stats).flushed(frames), nil
	}
	if !d.sounded(i) && c.Speed > 0 {
		frames = stretch(frames, d.width, 1+c.Speed*(2*r.Float64()-1))
	}
	if d.sounded(i) && (c.Speed > 0 || c.Gain > 0 || c.Noise > 0) {
		if frames, err = d.disturbed(i, r); err != nil {
			return nil, err
		}
	}
	f := newFrontend(c, d.width, d.stats)
	width := d.width * (c.Deltas + 1)
	full := f.deltas.run(nil, frames, true)
	f.norm.apply(full)
	mask(full, width, d.width, c, r)
	return f.stack.run(nil, full, true), nil
}

// flushed is all steps of an utterance.
func (f *frontend) flushed(frames []float32) []float32 { return f.run(nil, frames, true) }

// stretch changes the tempo of frames to so many times the old one, by linear
// interpolation.
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

// speeds is how many different speeds a sound is played at; each needs a filter.
const speeds = 5

// disturbed is the features of a sound that is played at another speed, louder
// or softer, and in noise.
func (d *dataset) disturbed(i int, r *rand.Rand) ([]float32, error) {
	s, err := audio.Read(d.list[i].Audio)
	if err != nil {
		return nil, err
	}
	rate := int(float64(s.Rate) * (1 + d.cfg.Speed*(2*float64(r.IntN(speeds))/(speeds-1)-1)))
	s.Samples = d.resampled(s.Samples, rate, d.cfg.Rate)
	s.Rate = d.cfg.Rate
	return audio.Extract(disturb(s, d.cfg, r), d.cfg.specAt(d.cfg.Rate)), nil
}

// resampled brings samples of one rate to another. The filters are kept, since
// making one takes longer than using it.
func (d *dataset) resampled(x []float32, from, to int) []float32 {
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

// disturb changes loudness and adds noise.
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
	// Up to 20 dB better than the worst.
	ratio := c.Noise + 20*r.Float64()
	amplitude := math.Sqrt(power/float64(max(len(out.Samples), 1))) * math.Pow(10, -ratio/20)
	for i := range out.Samples {
		noise := simd.Narrow(amplitude * r.NormFloat64())
		out.Samples[i] = simd.Narrow(float64(out.Samples[i]) + float64(noise))
	}
	return out
}

// mask puts zeros, the mean, over stretches of time and of bands (SpecAugment,
// Park et al. 2019). Frames have the bands, then their slopes.
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
