package forecast

import (
	"cmp"
	"fmt"
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/tensor"
)

// linearFile holds the linear path of each stage in a model directory.
const linearFile = "linear.safetensors"

// file holds the parameters of the networks of a stage that differ from those in use.
func (s stage) file() string { return stageNames[s] + ".safetensors" }

// Model is a trained forecasting model. It is safe for concurrent use.
type Model struct {
	cfg       Config
	schema    *schema
	net       *network // the first member
	slab      *tensor.Slab
	ridge     *ridge
	residuals residuals
	shifts    shifts  // nil: quantiles are as the network gives them
	errors    float64 // about how many independent errors residuals and shifts are from; 0: unknown
	spread    spreads // by series, at the end of the rows that its stage has learnt from; nil: intervals do not adapt, as those of older models
	notes     []string
	gain      float64
	mixture   mixture
	own       ownShares          // of the mixture; none where all series share theirs
	even      bool               // where series have shares of their own: the network's part beside the linear path has the same size in all
	learnt    map[string]*learnt // by series; nil: not known
	stage     stage
	others    [stages]*Model // by stage; nil: the model itself
	trained   []networkPart  // in training, by member: its part before it was scaled by the gain; nil without a linear path
}

// saved is a Model's part of config.json.
type saved struct {
	Config    Config     `json:"config"`
	Schema    *schema    `json:"schema"`
	Gain      float64    `json:"gain"`
	Mixture   mixture    `json:"mixture"`
	Own       ownShares  `json:"series_shares,omitempty"`
	Even      bool       `json:"even,omitempty"`
	Linear    [][]choice `json:"linear"`
	Residuals residuals  `json:"residuals"`
	Shifts    shifts     `json:"shifts"`
	Errors    float64    `json:"errors"`
	Spread    spreads    `json:"spread"`
	Begin     spreads    `json:"begin"`
	Notes     []string   `json:"notes"`

	Learnt map[string]*learnt `json:"learnt,omitempty"`

	// Of older models.
	Anchor  *anchor   `json:"anchor,omitempty"`
	Penalty []float64 `json:"penalty,omitempty"`
}

// anchor is the mixture of older models: a seasonal naive forecast beside the network.
type anchor struct {
	Season int     `json:"season"`
	Share  float64 `json:"share"`
}

// mixture returns the anchor as a mixture for a number of targets.
func (a *anchor) mixture(targets int) mixture {
	if a == nil || a.Share == 0 {
		return nil
	}
	parts := []part{{Method: ownPart, Share: 1 - a.Share}, {Method: fmt.Sprintf("%s%d", seasonalName, a.Season), Share: a.Share}}
	return slices.Repeat(mixture{parts}, targets)
}

// Config returns the configuration, in which the values that depend on the data
// are set.
func (m *Model) Config() Config { return m.cfg }

// Slab returns the parameters of the network that forecasts, with its linear path.
// They must not be changed while the model is in use.
func (m *Model) Slab() *tensor.Slab { return m.slab }

// Slabs returns the parameters of the networks of all stages, the first those of Slab.
func (m *Model) Slabs() []*tensor.Slab {
	list := []*tensor.Slab{m.slab}
	for _, other := range m.others {
		if other != nil && !slices.Contains(list, other.slab) {
			list = append(list, other.slab)
		}
	}
	return list
}

// Notes returns remarks on the training, a sentence each: sizes that the data
// forced, constant series, a transformation, shares of simple methods, the source of
// intervals.
func (m *Model) Notes() []string { return slices.Clone(m.notes) }

// newModel makes an untrained model for a settled configuration.
func newModel(cfg Config, s *schema, on *tensor.Device) (_ *Model, err error) {
	defer tensor.Recover(&err)
	m := &Model{cfg: cfg, schema: s, gain: 1}
	d := newShape(s, &m.cfg)
	m.net = newNetwork(&m.cfg, d)
	m.net.Members = []*network{m.net}
	for range m.cfg.Members - 1 {
		m.net.Members = append(m.net.Members, newNetwork(&m.cfg, d))
	}
	m.slab = tensor.Pack(on, m.net, cfg.Seed)
	return m, nil
}

// Save writes the model to a directory that [Open] reads. Its errors are those of
// [model.Save].
func (m *Model) Save(dir string) error {
	var ts []model.Tensor
	files := []model.Part{model.Weights(m.slab)}
	for s := range stages {
		if s > stageInUse && m.others[s] == nil {
			continue
		}
		own := m.at(s)
		if s > stageInUse {
			files = append(files, model.Tensors(s.file(), m.otherwise(own), nil))
		}
		for k, w := range own.ridge.weights {
			rows, columns := w.Dims()
			t := model.Tensor{Name: fmt.Sprintf("%s.%d", stageNames[s], k), Dims: []int{rows, columns}}
			for i := range rows {
				for _, v := range w.RawRowView(i) {
					t.Data = append(t.Data, float32(v))
				}
			}
			ts = append(ts, t)
		}
	}
	c := saved{Config: m.cfg, Schema: m.schema, Gain: m.gain, Mixture: m.mixture, Own: m.own, Even: m.even, Linear: m.ridge.choices, Residuals: m.residuals, Shifts: m.shifts,
		Errors: m.errors, Spread: m.spread, Begin: m.at(stageScored).spread, Notes: m.notes, Learnt: m.learnt}
	files = append(files, model.Tensors(linearFile, ts, nil))
	return model.Save(dir, Name, c, files...)
}

// otherwise returns the parameters of another stage that are not those of m.
func (m *Model) otherwise(other *Model) []model.Tensor {
	own := m.slab.Params
	list := model.SlabTensors(other.slab)
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Name == own[i].Name && slices.Equal(list[i].Data, own[i].Read()) {
			list = slices.Delete(list, i, i+1)
		}
	}
	return list
}

// Open reads a model directory. A directory that is missing, damaged or of
// another task is a *model.FileError. The network is put on the device given, by
// default the CPU.
func Open(dir string, on ...*tensor.Device) (*Model, error) {
	return model.OpenAs(dir, OpenDir, on...)
}

// OpenDir is [Open] for a directory that has been read already, with the same
// errors.
func OpenDir(d *model.Dir, on ...*tensor.Device) (_ *Model, err error) {
	defer tensor.Recover(&err)
	c := saved{Schema: &schema{}}
	if err := d.For(Name, "a forecasting model", &c); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, d.Broken(err)
	}
	c.Schema.Log = c.Schema.Log || c.Config.Transform == "log" // older ones have it there alone
	m, err := newModel(c.Config, c.Schema, cmp.Or(on...))
	if err != nil {
		return nil, d.Broken(err)
	}
	m.gain, m.mixture, m.own, m.even, m.residuals, m.shifts, m.errors, m.spread, m.notes, m.learnt = c.Gain, c.Mixture, c.Own, c.Even, c.Residuals, c.Shifts, c.Errors, c.Spread, c.Notes, c.Learnt
	if m.mixture == nil {
		m.mixture = c.Anchor.mixture(len(m.cfg.targets()))
	}
	if err := d.Load(m.slab); err != nil {
		return nil, err
	}
	return m, m.openLinear(d, c.Linear, c.Begin)
}

// check returns an error for a config.json that Save cannot have written.
func (c *saved) check() error {
	if err := c.Config.Validate(); err != nil {
		return err
	}
	if c.Config.Window < 1 || c.Config.Horizon < 1 || c.Schema == nil {
		return fmt.Errorf("window, horizon or schema is missing")
	}
	s, n := c.Schema, len(c.Config.targets())
	if len(s.Past) != len(c.Config.Past) || len(s.Ahead) != len(c.Config.ahead()) || len(s.Binary) != len(s.Ahead) ||
		len(s.Static) != len(c.Config.Static) || len(s.Pooled) != n {
		return fmt.Errorf("schema does not fit the columns")
	}
	for id, fits := range s.Series {
		if len(fits) != n {
			return fmt.Errorf("schema has %d targets for series %q, expected %d", len(fits), id, n)
		}
	}
	for _, own := range c.Shifts {
		if len(c.Shifts) != n || len(own) != len(c.Config.Quantiles) {
			return fmt.Errorf("there are shifts of %d quantiles of %d targets, expected %d of %d", len(own), len(c.Shifts), len(c.Config.Quantiles), n)
		}
	}
	for id, l := range c.Learnt {
		if !l.valid() {
			return fmt.Errorf("learnt: the parts of series %q are not valid", id)
		}
	}
	if err := c.Mixture.check(n); err != nil {
		return err
	}
	if err := c.Own.check(c.Mixture); err != nil {
		return err
	}
	if a := c.Anchor; a != nil && a.Share != 0 && (a.Season < 1 || !(a.Share > 0 && a.Share <= 1)) {
		return fmt.Errorf("anchor: season %d and share %v are not valid", a.Season, a.Share)
	}
	for _, tried := range c.Linear {
		if len(c.Linear) != n || slices.ContainsFunc(tried, func(one choice) bool { return one.Lags < 0 || one.Lags > len(s.Lags) }) {
			return fmt.Errorf("linear: regressions of %d targets with at most %d lags are expected", n, len(s.Lags))
		}
	}
	for _, all := range []spreads{c.Spread, c.Begin} {
		if err := all.check(n, c.Config.Horizon); err != nil {
			return err
		}
	}
	for _, steps := range c.Residuals {
		if len(steps) != c.Config.Horizon {
			return fmt.Errorf("residuals have %d steps, expected %d", len(steps), c.Config.Horizon)
		}
	}
	return nil
}

func (m *Model) openLinear(dir *model.Dir, choices [][]choice, begin spreads) error {
	f, err := dir.ReadTensors(linearFile)
	if err != nil {
		return err
	}
	d := m.net.dims
	read := func(s stage) (*ridge, error) {
		line := m.line(nil, choices)
		for k := range d.targets {
			name := fmt.Sprintf("%s.%d", stageNames[s], k)
			t := f.Lookup(name)
			if t == nil || !slices.Equal(t.Dims, []int{d.linear + d.groups, d.horizon}) {
				return nil, &model.FileError{File: f.Path, Tensor: name, Problem: fmt.Sprintf("expected shape [%d %d]", d.linear+d.groups, d.horizon), Fix: "train the model again"}
			}
			values := make([]float64, len(t.Data))
			widen(values, t.Data)
			line.weights = append(line.weights, mat.NewDense(d.linear+d.groups, d.horizon, values))
		}
		return line, nil
	}
	if m.ridge, err = read(stageInUse); err != nil {
		return err
	}
	for s := stageScored; s < stages; s++ {
		if f.Lookup(stageNames[s]+".0") == nil {
			return nil // the model was not refitted
		}
		line, err := read(s)
		if err != nil {
			return err
		}
		other, err := m.copyAt(s)
		if err != nil {
			return err
		}
		other.move(line)
		other.spread = begin
		if dir.Has(s.file()) { // older models have the same networks at all stages
			networks, err := dir.ReadTensors(s.file())
			if err != nil {
				return err
			}
			all := slices.Clone(networks.Tensors)
			for _, t := range model.SlabTensors(m.slab) {
				if networks.Lookup(t.Name) == nil {
					all = append(all, t)
				}
			}
			if networks, err = model.NewFile(networks.Path, all, nil); err != nil {
				return err
			}
			if err := networks.Load(other.slab); err != nil {
				return err
			}
		}
		m.others[s] = other
	}
	return nil
}
