// Package forecast trains recurrent networks to forecast time series, and
// scores them beside simple methods on the same windows.
//
// A [Config] says what is forecast from what. [Read] reads a table, [Train] makes
// a [Model] of it, and a Model forecasts ([Model.Forecast], [Model.Predict]), is
// scored ([Model.Evaluate], [Model.Backtest]) and lives in a directory
// ([Model.Save], [Open]).
//
// Scalers, calendars and the linear path are fitted on the training rows alone.
// A window's targets lie wholly inside one part; it may look back into the rows
// before the part, never ahead.
package forecast

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
)

// Name is what the config.json of a model directory says of a forecasting model.
const Name = "forecast"

// Task is forecasting as a value.
var Task = task.New(task.About{
	Name: Name, Noun: "a forecasting model", Title: "Forecast",
	Short: "Train a forecasting model on a table of time series",
	Long: `Trains a forecasting model, scores it and the simple methods on the rows kept
for the test, and writes model, checkpoints and report into --out.`,
	Example: `  carousel train forecast --data sales.csv --time date --target units --out run
  carousel train forecast --data load.csv.gz --time time --target mw --future temp --holiday holiday \
      --horizon 24 --loss quantile --out run
  carousel train forecast --data shops.parquet --time day --id shop --target sales --static region --out run
  carousel train forecast --config recipe.yaml --set hidden=128 --out run`,
	Scores: wanted, Takes: wanted,
	Part: task.Test,
}, Defaults, Read, Train, OpenDir, (*Model).Evaluate, (*Model).Predict)

const wanted = "a table with the columns the model was trained on"

// Files are the files of a training.
type Files struct {
	Data string `json:"data" value:"file" group:"Files" help:"table to learn from: CSV, TSV, .tsf or Parquet; may be gzipped"`
}

// ForFiles sets the layout by the file's name where none is given.
func (c *Config) ForFiles(f *Files) {
	if name := strings.TrimSuffix(strings.ToLower(f.Data), ".gz"); c.Layout == data.LayoutLong && strings.HasSuffix(name, ".tsf") {
		c.Layout = data.LayoutTSF
	}
}

// Data is a table of series, whose rows are divided into parts. Frames, scalers
// and windows are made from it by each training and each evaluation.
type Data struct {
	task.Source
	Panel *data.Panel // as it was read; nothing here changes it

	empty [3]bool // by part: no series has a row in it
}

// Read reads a table with the columns that cfg names. Targets and past covariates
// may end before the file does: rows after them tell what is known ahead. What is
// wrong with the file is a *data.InputError.
func Read(ctx context.Context, f *Files, cfg Config) (*Data, error) {
	panel, err := readPanel(ctx, f.Data, &cfg)
	if err != nil {
		return nil, err
	}
	d, err := NewData(panel, cfg)
	if err != nil {
		return nil, err
	}
	d.Name = filepath.Base(f.Data)
	if len(cfg.Future) > 0 {
		d.Note(strings.Join(cfg.Future, ", ") + ": taken as known ahead, in training and in the scores")
	}
	return d, nil
}

func readPanel(ctx context.Context, path string, cfg *Config) (*data.Panel, error) {
	o, err := cfg.readOptions()
	if err != nil {
		return nil, err
	}
	return data.ReadPanel(ctx, path, o)
}

// NewData takes a table in memory, which has the columns that cfg names; one that
// lacks some is a *data.InputError.
func NewData(panel *data.Panel, cfg Config) (*Data, error) {
	frames, err := rawFrames(panel, &cfg)
	if err != nil {
		return nil, err
	}
	d := &Data{Panel: panel}
	if divide(cfg.Split, frames) != nil {
		return d, nil // the error is reported where the parts are needed
	}
	for part := range d.empty {
		d.empty[part] = !slices.ContainsFunc(frames, func(f *frame) bool { return f.part[part].len() > 0 })
	}
	return d, nil
}

// Has reports whether some series has a row in a part, divided as the settings say
// that the data were read with.
func (d *Data) Has(part task.Part) bool {
	at := slices.Index(partNames, part)
	return part == task.All || at >= 0 && !d.empty[at]
}

// String says in a line what the table holds.
func (d *Data) String() string {
	rows := 0
	for _, s := range d.Panel.Series {
		rows += s.Len()
	}
	text := report.Plural(rows, "row")
	if d.Name != "" {
		text = d.Name + ": " + text
	}
	if f := d.Panel.Freq.String(); f != "" {
		text += " at " + f
	}
	if n := len(d.Panel.Series); n > 1 {
		text += ", " + report.Count(n) + " series"
	}
	return text
}

// Wants is the data that a model wants.
type Wants struct {
	Freq   string   `json:"freq"`             // spacing of the rows
	Time   string   `json:"time,omitempty"`   // column of timestamps
	ID     string   `json:"id,omitempty"`     // column that tells series apart
	Target []string `json:"target"`           // columns that are forecast
	Past   []string `json:"past,omitempty"`   // columns known until now only
	Future []string `json:"future,omitempty"` // columns known ahead, that of holidays included
	Static []string `json:"static,omitempty"` // columns with one value a series
	Series int      `json:"series"`           // learnt from
}

// Wants names the columns that the model wants in a table, and their part.
func (m *Model) Wants() *Wants {
	return &Wants{
		Freq: m.schema.Freq.String(), Time: m.cfg.Time, ID: m.cfg.ID, Target: m.cfg.columns(), Past: m.cfg.Past,
		Future: m.cfg.ahead(), Static: m.cfg.Static, Series: len(m.schema.Series),
	}
}

// Title is the title of the page of a training.
func (m *Model) Title() string { return "Forecast of " + strings.Join(m.cfg.columns(), ", ") }
