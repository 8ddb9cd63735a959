"""As much of Lightning's interface as anomalib's models and engine show to others."""


class Callback:
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pass


class LightningDataModule:
    pass
