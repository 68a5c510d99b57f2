package speech

import (
	"context"
	"path/filepath"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
)

// Files are the files of a training.
type Files struct {
	Data  string `json:"data" value:"file" group:"Files" help:"manifest to learn from: a table (CSV or TSV) with a sound file a row; may be gzipped"`
	Test  string `json:"test" value:"file" group:"Files" help:"manifest to score the finished model on (none: the rows whose part is test, or else the validation part)"`
	Cache string `json:"cache" value:"dir" group:"Files" help:"directory that keeps computed features for later runs"`
}

// Data are utterances by part. It keeps the features of their sounds, as far as
// memory allows, so that several trainings and evaluations compute them once.
type Data struct {
	task.Parts[Utterance]
	task.Source
	features *features
}

// Read reads manifests as [Setup.ReadManifest] does, and divides that to learn from.
// Of the manifest for the test neither part nor speaker are read. The sounds are
// looked for; training reads them.
func Read(ctx context.Context, f *Files, c *Setup, column string, use func(*Utterance) error) (*Data, error) {
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

// NewData divides utterances as Read does. A share for validation that leaves none
// to train on is a *data.InputError.
func NewData(list []Utterance, c *Setup) (*Data, error) {
	p, err := c.divide(list)
	return &Data{Parts: p, features: &features{}}, err
}

// ToLearn are the utterances to learn from. It is a *data.InputError if there is none.
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

// Prepare reads the sounds of all parts, and gives those to learn from and to
// validate on. It settles the settings that the sounds determine; those of the
// test are read too, so that a damaged file is found now and not when training has
// ended. Files that cannot be used are one *data.InputError that names them.
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
