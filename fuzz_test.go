package carousel_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
)

// FuzzOpen: any bytes in place of a file of a model, such as config.json or
// vocabulary.json, give a model or an error of one of the kinds that Open names, in
// memory proportional to the file. The models are of the first format, which has no checksums of these files.
func FuzzOpen(f *testing.F) {
	const root = "testdata/format1"
	models, err := filepath.Glob(root + "/*/model")
	if err != nil || len(models) == 0 {
		f.Fatal(models, err)
	}
	type file struct{ dir, name string }
	var files []file
	for _, dir := range models {
		entries, err := os.ReadDir(dir)
		if err != nil {
			f.Fatal(err)
		}
		copied := f.TempDir()
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			f.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() || e.Name() == model.WeightsFile { // has a checksum
				continue
			}
			content, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(len(files)), content)
			files = append(files, file{copied, e.Name()})
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, content []byte) {
		one := files[int(which)%len(files)]
		path := filepath.Join(one.dir, one.name)
		right, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		defer os.WriteFile(path, right, 0o600)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = carousel.Open(one.dir)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > uint64(16<<20+1000*len(content)) {
			t.Errorf("%s: %d bytes were allocated for %d", path, took, len(content))
		}
		var damaged *model.FileError
		var input *data.InputError
		if err != nil && !errors.As(err, &damaged) && !errors.As(err, &input) {
			t.Errorf("%s: %T: %v", path, err, err)
		}
	})
}
