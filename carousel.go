package carousel

import (
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/task/classify"
	"github.com/carousel-ml/carousel/task/forecast"
	"github.com/carousel-ml/carousel/task/generate"
	"github.com/carousel-ml/carousel/task/keywords"
	"github.com/carousel-ml/carousel/task/tag"
	"github.com/carousel-ml/carousel/task/transcribe"
	"github.com/carousel-ml/carousel/task/translate"
	"github.com/carousel-ml/carousel/tensor"
)

// Tasks are all tasks, in the order of the command's help. The slice must not be
// changed.
var Tasks = []*task.Kind{
	forecast.Task,
	classify.Task,
	generate.Task,
	tag.Task,
	translate.Task,
	transcribe.Task,
	keywords.Task,
}

// Open reads a model directory of any task. A directory that is missing, damaged
// or of a task that this version does not have is a *model.FileError. The network
// is put on the device given, by default the CPU.
//
// The result predicts and is evaluated like any model; a type switch on its Model
// gives access to the methods of one task: *classify.Model, *forecast.Model and
// so on.
func Open(path string, on ...*tensor.Device) (*task.Trained, error) {
	dir, err := model.Open(path)
	if err != nil {
		return nil, err
	}
	for _, k := range Tasks {
		if k.Is(dir) {
			return k.Open(dir, on...)
		}
	}
	return nil, &model.FileError{
		File:    path,
		Problem: fmt.Sprintf("a model for task %q, which this version does not have", dir.Task),
		Fix:     "use a newer carousel",
	}
}

// version is set by the linker in release builds.
var version string

// Version returns the version of this build: that of the release, or of the
// module as recorded by Go, or "devel".
var Version = sync.OnceValue(func() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Path == "github.com/carousel-ml/carousel" && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
})
