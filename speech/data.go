package speech

import (
	"context"
	"path/filepath"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
)

// Files are the files of a task on speech.
type Files struct {
	Data  string `json:"data" value:"file" group:"Files" help:"training manifest: a table (CSV or TSV) with a sound file per row; may be gzipped"`
	Test  string `json:"test" value:"file" group:"Files" help:"test manifest, on which the trained model is scored (empty: the rows whose part is test, or else the validation part)"`
	Cache string `json:"cache" value:"dir" group:"Files" help:"directory in which computed features are kept for later runs"`
}

// Data is utterances by part. It keeps the features of their sounds in memory, up
// to a limit, so that several trainings and evaluations compute them once.
type Data struct {
	task.Parts[Utterance]
	task.Source
	features *features
}

// Read reads manifests with [Setup.ReadManifest] and divides the first by
// [NewData]; the test manifest's columns of parts and speakers are not read. It
// checks that the sounds exist; training reads them. The errors are those of
// these two functions, and a *data.InputError for a cache that is not a
// directory.
func Read(ctx context.Context, f *Files, c *Setup, column string, use func(*Utterance) error) (*Data, error) {
	if f.Cache != "" {
		if err := checkCache(f.Cache); err != nil {
			return nil, err
		}
	}
	list, err := c.ReadManifest(ctx, f.Data, column, use)
	if err != nil {
		return nil, err
	}
	d, err := NewData(list, c)
	if err != nil {
		return nil, err
	}
	d.Name, d.features.dir = filepath.Base(f.Data)+": "+report.Plural(len(list), "utterance"), f.Cache
	if f.Test != "" {
		test := *c
		test.SplitColumn, test.Speaker = "", ""
		d.Test, err = test.ReadManifest(ctx, f.Test, column, use)
	}
	return d, err
}

// NewData divides utterances in memory into parts: by their Part if SplitColumn
// is set, otherwise the share Holdout of the utterances, or of the speakers, is
// for validation and the rest for training. A share that leaves nothing to train
// on is a *data.InputError.
func NewData(list []Utterance, c *Setup) (*Data, error) {
	p, err := c.divide(list)
	return &Data{Parts: p, features: &features{}}, err
}

// ToLearn returns the training utterances. If there are none the error is a
// *data.InputError.
func (d *Data) ToLearn(c *Setup) ([]Utterance, error) {
	all := d.Of(task.All)
	switch {
	case len(d.Training) > 0:
		return d.Training, nil
	case len(all) > 0:
		return nil, &data.InputError{File: all[0].File, Column: c.SplitColumn, Problem: "names no row train"}
	}
	return nil, data.Errorf("there is no utterance to learn from")
}

// Prepare reads the sounds of all parts and returns the datasets for training and
// validation. It sets the settings that depend on the sounds, such as Rate.
// Sounds of the test part are read too, so that damaged files are found before
// training. Files that cannot be used are one *data.InputError that names them; a
// cancelled ctx returns its error.
func (d *Data) Prepare(ctx context.Context, c *Setup) (learn, valid *Dataset, err error) {
	f := &Frontend{setup: c}
	var faults []fault
	var sets [3]*Dataset
	for i, part := range []task.Part{task.Training, task.Validation, task.Test} {
		sets[i] = f.dataset(d.Of(part), d)
		more, err := sets[i].open(ctx)
		if err != nil {
			return nil, nil, err
		}
		faults = append(faults, more...)
	}
	if err := gather(faults); err != nil {
		return nil, nil, err
	}
	return sets[0], sets[1], sets[0].measure(ctx)
}
