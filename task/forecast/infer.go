package forecast

import (
	"context"
	"math"
	"math/rand/v2"

	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
	"gonum.org/v1/gonum/stat/distuv"
)

// rowsAtOnce is the number of rows of the network in one forward pass.
const rowsAtOnce = 256

// samplePaths is the number of paths that are drawn from an autoregressive
// distribution.
const samplePaths = 64

// steps are the forecasts of one target of one window.
type steps struct {
	point     []float64   // [horizon], data units
	quantiles [][]float64 // [horizon][level]
	location  []float64   // [horizon], in the window's units
	centre    centre
	from      int // the first step that no earlier window forecasts, if each row has one forecast
}

// forecastAll runs the network over windows and calls use with the forecast of
// each target of each window. The steps are valid until use returns. The context's ranks
// share this as [train.Share] describes.
func (m *Model) forecastAll(ctx context.Context, d *dataset, list []window, levels []float64, use func(w window, k int, s *steps)) error {
	if m.smooths() {
		if err := d.smooth(ctx, list); err != nil {
			return err
		}
	}
	repeated := d.repeated(list)
	tape := tensor.NewTape(m.slab.Device(), tensor.Infer)
	size := max(1, rowsAtOnce/d.targets)
	if m.cfg.Head == "autoregressive" && m.cfg.Loss != "mse" {
		size = max(1, size/8)
	}
	part := func(i int) []window { return list[i*size : min((i+1)*size, len(list))] }
	b, s := &batch{}, newSteps(d.horizon, len(levels))
	var out []float64
	return train.Share(ctx, ceil(len(list), size), func(_ context.Context, i int) ([]float64, error) {
		out = out[:0]
		m.forecastPart(tape, d, b, part(i), levels, func(w window, k int, s *steps) {
			m.adjust(s, k, units{s.centre, d.frames[w.frame].fit[k].Scaler}, levels)
			out = s.append(out)
		})
		return out, nil
	}, func(i int, result []float64) error {
		for k := range d.targets {
			for _, w := range part(i) {
				result = s.take(result)
				s.from = repeated[w]
				use(w, k, s)
			}
		}
		return nil
	})
}

// append appends a forecast as ranks send it to each other; take is the inverse, and
// returns the numbers after it.
func (s *steps) append(x []float64) []float64 {
	x = append(append(append(x, float64(s.centre.shift), float64(s.centre.scale)), s.point...), s.location...)
	for _, q := range s.quantiles {
		x = append(x, q...)
	}
	return x
}

func (s *steps) take(x []float64) []float64 {
	s.centre = centre{float32(x[0]), float32(x[1])}
	x = x[2:]
	for _, part := range append([][]float64{s.point, s.location}, s.quantiles...) {
		x = x[copy(part, x):]
	}
	return x
}

// forecastPart runs the network over windows at once, and calls visit with the forecast
// of each target of each window, target by target.
func (m *Model) forecastPart(tape *tensor.Tape, d *dataset, b *batch, list []window, levels []float64, visit func(w window, k int, s *steps)) {
	tape.Reset()
	d.load(b, list, false)
	if n := len(m.net.Members); n > 1 {
		visit = averaged(n, len(list)*d.targets, visit)
	}
	for i, net := range m.net.Members {
		if i > 0 {
			tape.Reset()
		}
		if m.cfg.Head == "autoregressive" {
			m.unrollBatch(tape, net, d, b, list, levels, visit)
			continue
		}
		m.forecastBatch(net.forward(tape, b).Data(), d, b, list, levels, visit)
	}
}

// averaged returns a function for the forecasts of n networks of the same targets and
// windows, in the same order, that calls visit with their means: of quantiles too, level
// by level.
func averaged(n, forecasts int, visit func(w window, k int, s *steps)) func(w window, k int, s *steps) {
	means, calls := make([]*steps, forecasts), 0
	add := func(mean, x []float64) {
		for i, v := range x {
			mean[i] += v / float64(n)
		}
	}
	return func(w window, k int, s *steps) {
		at := calls % forecasts
		if means[at] == nil {
			means[at] = newSteps(len(s.point), len(s.quantiles[0]))
		}
		mean := means[at]
		mean.centre = s.centre
		add(mean.point, s.point)
		add(mean.location, s.location)
		for h, q := range s.quantiles {
			add(mean.quantiles[h], q)
		}
		if calls++; calls > (n-1)*forecasts {
			visit(w, k, mean)
		}
	}
}

// forecastBatch reads the output of the direct head [targets,n,horizon,outputs].
func (m *Model) forecastBatch(out []float32, d *dataset, b *batch, list []window, levels []float64, visit func(w window, k int, s *steps)) {
	s := newSteps(d.horizon, len(levels))
	for at := range d.targets * b.n {
		k, i := at/b.n, at%b.n
		u := units{b.centres[at], d.frames[list[i].frame].fit[k].Scaler}
		s.centre = u.centre
		m.lean(out[at*d.horizon*d.outputs:][:d.horizon*d.outputs], s.point, d, d.frames[list[i].frame], k, int(list[i].origin), u)
		for h := range d.horizon {
			o := out[(at*d.horizon+h)*d.outputs:][:d.outputs]
			s.location[h] = float64(o[0])
			s.point[h] = m.point(o, u)
			m.quantiles(s.quantiles[h], o, u, k, h, levels)
		}
		visit(list[i], k, s)
	}
}

func newSteps(horizon, levels int) *steps {
	s := &steps{point: make([]float64, horizon), location: make([]float64, horizon), quantiles: make([][]float64, horizon)}
	for h := range s.quantiles {
		s.quantiles[h] = make([]float64, levels)
	}
	return s
}

// unrollBatch runs an autoregressive network step by step: once with its location
// as the next input, for the point forecast, and for a likelihood also along
// sampled paths, whose quantiles are those of the forecast.
func (m *Model) unrollBatch(tape *tensor.Tape, net *network, d *dataset, b *batch, list []window, levels []float64, visit func(w window, k int, s *steps)) {
	points := m.path(tape, net, d, b, list, nil)
	var paths [][]float32
	if sampled := m.cfg.Loss == "gaussian" || m.cfg.Loss == "student-t"; sampled && len(levels) > 0 {
		for p := range samplePaths {
			tape.Reset()
			d.load(b, list, false)
			paths = append(paths, m.path(tape, net, d, b, list, rand.New(rand.NewPCG(m.cfg.Seed, uint64(p)))))
		}
	}
	s := newSteps(d.horizon, len(levels))
	drawn := make([]float64, len(paths))
	for at := range d.targets * b.n {
		k, i := at/b.n, at%b.n
		u := units{b.centres[at], d.frames[list[i].frame].fit[k].Scaler}
		s.centre = u.centre
		for h := range d.horizon {
			z := float64(points[at*d.horizon+h])
			s.location[h], s.point[h] = z, u.out(z)
			for j, q := range levels {
				s.quantiles[h][j] = u.out(z + m.residual(k, h, q))
			}
			if paths == nil {
				continue
			}
			for p := range paths {
				drawn[p] = float64(paths[p][at*d.horizon+h])
			}
			sorted := thinSorted(drawn, len(drawn))
			for j, q := range levels {
				s.quantiles[h][j] = u.out(sortedQuantile(sorted, q))
			}
		}
		visit(list[i], k, s)
	}
}

// path returns one path of every target [targets,n,horizon], in the windows'
// units: the network's locations or, if random is not nil, random draws.
func (m *Model) path(tape *tensor.Tape, net *network, d *dataset, b *batch, list []window, random *rand.Rand) []float32 {
	out, state := net.unroll(tape, b, tape.Input(b.encoder, b.rows, d.window, d.encoder), nil)
	values := make([]float32, d.targets*b.n*d.horizon)
	x := make([]float32, b.rows*d.encoder)
	centres := make([]centre, d.targets)
	for h := range d.horizon {
		last := tensor.Slice(out, 1, out.Dim(1)-1, out.Dim(1)).Data() // [rows, 1, channels, outputs]
		for r := range b.rows {
			k, i := d.row(b, r)
			for c := range d.channels {
				o := last[(r*d.channels+c)*d.outputs:][:d.outputs]
				values[((k+c)*b.n+i)*d.horizon+h] = m.draw(o, random)
			}
		}
		if h == d.horizon-1 {
			break
		}
		clear(x)
		for r := range b.rows {
			k, i := d.row(b, r)
			f, origin := d.frames[list[i].frame], int(list[i].origin)
			in := x[r*d.encoder : (r+1)*d.encoder]
			d.fillUnrolled(in, f, k, origin+h, 1, d.centresOf(b, centres, i))
			for c := range d.channels {
				in[c] = values[((k+c)*b.n+i)*d.horizon+h]
				if masked(d.cfg) {
					in[d.channels+c] = 0
				}
			}
		}
		out, state = net.unroll(tape, b, tape.Input(x, b.rows, 1, d.encoder), state)
	}
	return values
}

// draw returns the location of a step's outputs, or a draw from their
// distribution.
func (m *Model) draw(o []float32, random *rand.Rand) float32 {
	if random == nil {
		return o[0]
	}
	sigma := positive(o[1])
	if m.cfg.Loss == "student-t" {
		return float32(distuv.StudentsT{Mu: float64(o[0]), Sigma: sigma, Nu: 2 + softplus(float64(o[2])), Src: random}.Rand())
	}
	return o[0] + float32(sigma*random.NormFloat64())
}

// validation returns the mean absolute and the mean squared error of the network
// on windows, in values standardised by the training rows.
func (m *Model) validation(ctx context.Context, d *dataset, list []window) (map[string]float64, error) {
	var s score
	err := m.forecastAll(ctx, d, list, nil, func(w window, k int, got *steps) {
		f := d.frames[w.frame]
		for h, y := range got.point {
			row := int(w.origin) + h
			if row < f.end {
				s.add(0, f.raw[k][row], y, &f.fit[k])
			}
		}
	})
	if err != nil {
		return nil, err
	}
	mae, mse := s.absoluteScaled.value(), s.squaredScaled.value()
	if math.IsNaN(mae) {
		mae, mse = 0, 0
	}
	return map[string]float64{"mae": mae, "mse": mse}, nil
}
