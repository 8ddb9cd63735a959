from pathlib import Path

import torch


class Trainer:
    def __init__(
        self, callbacks, logger, default_root_dir, max_epochs=None, max_steps=-1, accelerator="auto", **others
    ):
        assert Path(default_root_dir).is_dir()
        assert logger is False
        unknown = set(others) - {
            "devices",
            "enable_progress_bar",
            "enable_model_summary",
            "gradient_clip_val",
            "num_sanity_val_steps",
        }
        if unknown:
            raise TypeError(f"Trainer got an unexpected keyword argument {sorted(unknown)}")
        assert accelerator == "cpu"
        self.callbacks, self.global_step = callbacks, 0
        # Lightning's rule: without either of them 1000 epochs.
        self.max_epochs = (1000 if max_steps == -1 else -1) if max_epochs is None else max_epochs
        self.max_steps = max_steps

    @property
    def estimated_stepping_batches(self):
        lengths = [] if self.max_epochs < 0 else [self.max_epochs * len(self.datamodule.train_dataloader())]
        return min([*lengths, *([] if self.max_steps < 0 else [self.max_steps])])

    def fit(self, model, datamodule):
        self.datamodule, model.trainer = datamodule, self
        optimiser = model.configure_optimizers()
        total, epoch = self.estimated_stepping_batches, 0
        model.train()
        model.on_train_start()
        while self.global_step < total:
            for index, batch in enumerate(datamodule.train_dataloader()):
                if self.global_step == total:
                    break
                output = model.training_step(batch, index)
                if optimiser is not None:
                    optimiser.zero_grad()
                    output["loss"].backward()
                    optimiser.step()
                self.global_step += 1
                for callback in self.callbacks:
                    callback.on_train_batch_end(self, model, output, batch, index)
            epoch += 1
            model.on_train_epoch_end()
            model.eval()
            with torch.no_grad():
                model.on_validation_start()
                for index, batch in enumerate(datamodule.val_dataloader()):
                    model.validation_step(batch, index)
            model.train()


class Engine:
    def __init__(self, callbacks=None, logger=None, default_root_dir="results", **kwargs):
        logger = False if logger is None else logger
        self._arguments = {
            "callbacks": callbacks or [],
            "logger": logger,
            "default_root_dir": default_root_dir,
            **kwargs,
        }

    def fit(self, model, train_dataloaders=None, val_dataloaders=None, datamodule=None, ckpt_path=None):
        assert isinstance(datamodule.name, str)
        assert isinstance(datamodule.category, str)
        self._arguments.update(model.trainer_arguments)
        Trainer(**self._arguments).fit(model, datamodule)
