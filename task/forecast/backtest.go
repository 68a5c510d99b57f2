package forecast

import (
	"context"
	"fmt"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// BacktestOptions are the options of a backtest; nil is the zero value.
type BacktestOptions struct {
	EvaluateOptions
	Stride int  `json:"stride" range:"0.." value:"rows" group:"Backtest" help:"rows from one forecast origin to the next (0: the horizon)"`
	Refit  bool `json:"refit" group:"Backtest" help:"train a new model for each origin, on all rows before it"`
}

// Backtest scores forecasts from successive origins through the test part, with the
// linear path that [Model.Evaluate] has. With Refit a new model is trained for each
// origin on the rows before it, of which the last are for validation, as many as
// before. A test part without a window, a table that does not fit the model and
// invalid options are a *data.InputError; a cancelled ctx returns its error, also
// during a training.
func (m *Model) Backtest(ctx context.Context, from *Data, o *BacktestOptions) (_ *Evaluation, err error) {
	defer tensor.Recover(&err)
	task.NeedData(from, "forecast: Backtest")
	task.NeedData(from.Panel, "forecast: Backtest")
	if o == nil {
		o = &BacktestOptions{}
	}
	if err := settings.Check(o); err != nil {
		return nil, data.Setting(err)
	}
	stride := o.Stride
	if stride == 0 {
		stride = m.cfg.Horizon
	}
	m = m.at(stageScored)
	d, list, _, err := m.scored(from.Panel, task.Test, stride)
	if err != nil {
		return nil, data.InFile(from.Name, err)
	}
	if !o.Refit {
		if err := o.Gift.check(m); err != nil {
			return nil, err
		}
		e, err := m.score(ctx, d, list, task.Test, stride, o.Out)
		if err != nil {
			return nil, err
		}
		return e, o.Gift.write(ctx, m, d, list, testPart, from.Name)
	}
	if o.Gift.File != "" {
		return nil, data.Errorf("gift_eval: its line is of one model, and refit trains one for each origin; leave out one of the two")
	}
	return m.refitScore(ctx, from.Panel, d, list, stride, o.Out)
}

// refitScore groups the windows by their distance from the start of the test
// part; each group is one origin, and one model.
func (m *Model) refitScore(ctx context.Context, panel *data.Panel, d *dataset, list []window, stride int, out string) (*Evaluation, error) {
	groups := map[int][]window{}
	last := 0
	for _, w := range list {
		at := (int(w.origin) - d.frames[w.frame].part[testPart].lo) / stride
		groups[at] = append(groups[at], w)
		last = max(last, at)
	}
	t, err := newTally(ctx, d, m.ridge, list, task.Test, m.cfg.Quantiles)
	if err != nil {
		return nil, err
	}
	e := &Evaluation{Task: Name, Scored: scoredOf(task.Test, d.frames), Windows: len(list), Horizon: d.horizon, Stride: stride, Simulation: m.cfg.NoTargetHistory, Members: m.cfg.Members,
		Notes: []string{fmt.Sprintf("a new model was trained for each of %d origins", len(groups))}}
	err = m.keeping(out, d, t.levels, func(file *scoredFile) error {
		for at := 0; at <= last; at++ {
			windows := groups[at]
			if len(windows) == 0 {
				continue
			}
			fresh, err := m.anew(ctx, panel, d, windows)
			if err != nil {
				return err
			}
			own, err := fresh.dataset(panel, false)
			if err != nil {
				return err
			}
			if err := t.use(ctx, fresh.ridge, own, list); err != nil {
				return err
			}
			err = t.forecast(ctx, fresh, windows, func(w window, k int, s *steps) { file.add(w, k, s) })
			if err != nil {
				return err
			}
			if by := fresh.forecaster(); e.Forecaster == "" {
				e.Forecaster = by
			} else if by != e.Forecaster {
				e.Forecaster = byNetwork // of some origins
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	t.finish(m, e)
	return e, nil
}

// use continues with the frames and the ridge regression of another model.
func (t *tally) use(ctx context.Context, r *ridge, d *dataset, list []window) (err error) {
	t.d = d
	t.baselines, err = d.baselines(ctx, r, list)
	return err
}

// anew trains a model on the rows before the origins of windows.
func (m *Model) anew(ctx context.Context, panel *data.Panel, d *dataset, windows []window) (*Model, error) {
	short := &data.Panel{Columns: panel.Columns, Freq: panel.Freq, HasTime: panel.HasTime, Style: panel.Style}
	validation := 0
	for _, w := range windows {
		short.Series = append(short.Series, d.frames[w.frame].series.Head(int(w.origin)))
		validation = max(validation, d.frames[w.frame].part[validationPart].len())
	}
	cfg := m.cfg
	cfg.Split = fmt.Sprintf("rest,%d,0", max(validation, cfg.Horizon))
	fresh, result, err := Train(ctx, &Data{Panel: short}, cfg, nil)
	if err != nil {
		return nil, err
	}
	if result.Interrupted {
		return nil, ctx.Err()
	}
	return fresh, nil
}
