// Package carousel trains and runs recurrent sequence models: the LSTM and
// related networks, in Go without cgo. It is named after the LSTM's central part,
// the constant error carousel.
//
// This package opens trained models of any task. These packages train and apply
// them:
//
//   - [github.com/carousel-ml/carousel/task] defines what a task is. Each task is a
//     package below it: [github.com/carousel-ml/carousel/task/forecast], classify,
//     generate, tag, translate, transcribe and keywords, each with a Config, Read,
//     Train, Open and a Model.
//   - [github.com/carousel-ml/carousel/data] reads tables and texts,
//     [github.com/carousel-ml/carousel/audio] sound;
//     [github.com/carousel-ml/carousel/text] has tokenizers and vocabularies.
//   - [github.com/carousel-ml/carousel/report] draws plots and writes pages.
//   - [github.com/carousel-ml/carousel/train] is the training loop: epochs,
//     checkpoints, exact resume, early stopping.
//   - [github.com/carousel-ml/carousel/nn], [github.com/carousel-ml/carousel/optim]
//     and [github.com/carousel-ml/carousel/tensor] are layers, optimizers and the
//     tape, for other models.
//   - [github.com/carousel-ml/carousel/model] stores models on disk, with PyTorch's
//     parameter names.
//
// The command in cmd/carousel does all of this without writing Go.
package carousel
