package forecast

import (
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/tensor/tensortest"
)

// ascending is a table in which row t holds the targets t and 100+t and the
// covariate x = 1000+t, known ahead.
func ascending(rows int) *data.Panel {
	s := &data.Series{Values: make([][]float64, 3)}
	for t := range rows {
		s.Line = append(s.Line, t+2)
		for i, v := range []int{t, 100 + t, 1000 + t} {
			s.Values[i] = append(s.Values[i], float64(v))
		}
	}
	return &data.Panel{Columns: []string{"a", "b", "x"}, Series: []*data.Series{s}}
}

func segmented(t *testing.T, set func(*Config)) (*Model, *dataset) {
	t.Helper()
	cfg := Defaults()
	cfg.Target, cfg.Future, cfg.Channels = []string{"a", "b"}, Future{"x"}, "joint"
	cfg.Scale, cfg.WindowNorm, cfg.Calendar, cfg.Lags, cfg.Skip = "none", "none", "off", []int{0}, "none"
	cfg.Window, cfg.Horizon, cfg.Segment, cfg.Hidden, cfg.Layers, cfg.Dropout = 5, 4, 3, 2, 1, 0
	set(&cfg)
	m, d, err := prepare(t.Context(), &Data{Panel: ascending(100)}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	d.Unit = 1
	for _, f := range d.frames { // x as it is in the table
		for c, column := range f.ahead {
			for i := range column {
				column[i] = float32(f.rawAhead[c][i])
			}
		}
		for c, column := range f.past {
			for i := range column {
				column[i] = float32(f.rawPast[c][i])
			}
		}
	}
	return m, d
}

// The rows of a segment are joined; the first segment of the window and the last
// of the horizon repeat the row at the end.
func TestSegmentsOfRows(t *testing.T) {
	_, d := segmented(t, func(*Config) {})
	var b batch
	d.load(&b, []window{{0, 50}}, false)
	if want := []float32{
		45, 145, 1045, 45, 145, 1045, 46, 146, 1046,
		47, 147, 1047, 48, 148, 1048, 49, 149, 1049,
	}; !slices.Equal(b.encoder, want) {
		t.Errorf("encoder\n%v, want\n%v", b.encoder, want)
	}
	if want := []float32{
		1050, 1051, 1052, 0.5,
		1053, 1053, 1053, 1,
	}; !slices.Equal(b.decoder, want) {
		t.Errorf("decoder\n%v, want\n%v", b.decoder, want)
	}
	_, d = segmented(t, func(c *Config) { c.Channels, c.Future = "independent", nil })
	d.load(&b, []window{{0, 50}}, false)
	if want := []float32{
		45, 45, 46, 1, 0, 47, 48, 49, 1, 0,
		145, 145, 146, 0, 1, 147, 148, 149, 0, 1,
	}; !slices.Equal(b.encoder, want) {
		t.Errorf("independent: encoder\n%v, want\n%v", b.encoder, want)
	}
	if want := []float32{0.5, 1, 0, 1, 1, 0, 0.5, 0, 1, 1, 0, 1}; !slices.Equal(b.decoder, want) {
		t.Errorf("independent: decoder\n%v, want\n%v", b.decoder, want)
	}
}

// Without target history the encoder reads the horizon in segments as well, which
// begin at the origin. Past covariates are zeros there, and the position tells why.
func TestSegmentsWithoutTargetHistory(t *testing.T) {
	_, d := segmented(t, func(c *Config) { c.NoTargetHistory = true })
	var b batch
	d.load(&b, []window{{0, 50}}, false)
	if want := []float32{
		1045, 1045, 1046,
		1047, 1048, 1049,
		1050, 1051, 1052,
		1053, 1053, 1053,
	}; !slices.Equal(b.encoder, want) || len(b.decoder) != 0 {
		t.Errorf("encoder\n%v, want\n%v; decoder %v", b.encoder, want, b.decoder)
	}
	_, d = segmented(t, func(c *Config) { c.NoTargetHistory, c.Future, c.Past = true, nil, Past{"x"} })
	d.load(&b, []window{{0, 50}}, false)
	if want := []float32{
		1045, 1045, 1046, 0,
		1047, 1048, 1049, 0,
		0, 0, 0, 0.5,
		0, 0, 0, 1,
	}; !slices.Equal(b.encoder, want) {
		t.Errorf("past: encoder\n%v, want\n%v", b.encoder, want)
	}
}

// The head gives the rows of a segment in turn, and what is beyond the horizon is
// cut: with weights of zero its bias shows which number is whose.
func TestSegmentsOfForecasts(t *testing.T) {
	for _, one := range []struct {
		channels string
		driven   bool
		want     []float32
	}{
		{"joint", false, []float32{0, 2, 4, 0, 1, 3, 5, 1}}, // [targets,horizon]
		{"independent", false, []float32{0, 1, 2, 0, 0, 1, 2, 0}},
		{"joint", true, []float32{0, 2, 4, 0, 1, 3, 5, 1}},
		{"independent", true, []float32{0, 1, 2, 0, 0, 1, 2, 0}},
	} {
		m, d := segmented(t, func(c *Config) { c.Channels, c.NoTargetHistory = one.channels, one.driven })
		head := m.net.Head
		head.Weight.Write(make([]float32, head.Weight.Len()))
		bias := make([]float32, head.Bias.Len())
		for i := range bias {
			bias[i] = float32(i)
		}
		head.Bias.Write(bias)
		var b batch
		d.load(&b, []window{{0, 50}}, false)
		if got := m.net.forward(tensor.NewTape(tensor.CPU(), tensor.Infer), &b).Data(); !slices.Equal(got, one.want) {
			t.Errorf("%s, no target history %v: forecast %v, want %v", one.channels, one.driven, got, one.want)
		}
	}
}

// Segments of one row are no segments: the same network to the last bit.
func TestSegmentOfOneRow(t *testing.T) {
	var models []*Model
	for _, segment := range []int{0, 1} {
		cfg := small()
		cfg.Segment, cfg.Epochs = segment, 1
		m, _, err := Train(t.Context(), &Data{Panel: hourly(1, 400)}, cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		models = append(models, m)
	}
	if !slices.EqualFunc(models[0].slab.Params, models[1].slab.Params, func(p, q *tensor.Param) bool {
		return p.Name == q.Name && slices.Equal(p.Read(), q.Read())
	}) {
		t.Error("segment 1 trains another network than segment 0")
	}
}

// The gradient of the whole network agrees with differences of its loss, also
// where the horizon ends within a segment.
func TestSegmentGradients(t *testing.T) {
	for _, set := range []func(*Config){
		func(c *Config) { c.Channels, c.WindowNorm = "joint", "last" },
		func(c *Config) { c.Channels, c.WindowNorm = "independent", "last" },
		func(c *Config) { c.NoTargetHistory = true },
	} {
		m, d := segmented(t, func(c *Config) { c.Loss, c.Scale = "gaussian", "standard"; set(c) })
		var b batch
		d.load(&b, []window{{0, 50}, {0, 60}}, true)
		tensortest.CheckGrad(t, m.slab, func(tape *tensor.Tape) *tensor.Tensor { return m.net.loss(tape, &b) })
	}
}
