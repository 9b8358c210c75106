"""One-line breaks of zoo/ ("mutants"), each of which some test must notice. Run by hand, it is no part of the suite:

    python tests/mutants.py                  # all of them, about an hour on one core
    python tests/mutants.py --only schedule  # those whose names contain the word
    python tests/mutants.py --jobs 2         # two at a time
    python tests/mutants.py --write          # all, and the table in tests/README.md

Each mutant is applied to a copy of the checkout in a temporary folder, where the tests that concern it run until the
first failure. The exit code is 1 where one survives. Before that, the same tests must pass without a mutant.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "tests" / "README.md"
MARKS = "<!-- mutants -->", "<!-- end -->"
TIMEOUT = 1_200  # seconds for the tests of one mutant
PASSED, FAILED = 0, 1  # pytest's exit codes; any other one is an error, such as a test that does not exist


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A break of one line.

    Args:
        file: the file below zoo/.
        old: a part of the line, which must occur exactly once in the file.
        new: what takes its place.
        tests: the tests that concern it, below tests/.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def path(self) -> str:
        return f"zoo/{self.file}"

    @property
    def nodes(self) -> list[str]:
        return [f"tests/{test}" for test in self.tests]


def mutant(name: str, file: str, old: str, new: str, *tests: str) -> Mutant:
    return Mutant(name, file, old, new, tests)


SEQUENCES = "test_sequences.py"
KNOWN = "test_known_answers.py"
EPOCHS = f"{KNOWN}::test_each_epoch_has_every_example_once_in_an_order_of_its_own"
AUGMENTED = f"{KNOWN}::test_each_image_is_augmented_anew_in_each_batch_and_epoch"
GAN = f"{KNOWN}::test_the_steps_of_a_gan_are_the_papers"
SCALE = f"{KNOWN}::test_generated_images_have_the_scale_of_the_training_images"
TRAINING = "test_training.py"
ARTIFACTS = "test_artifacts.py"
SEGMENTATION = "test_segmentation.py"
REPRODUCTION = "test_reproduction.py"

MUTANTS = (
    # --- batches and augmentation ---
    mutant(
        "the same augmentation in every epoch", "training/batches.py",
        "tf.random.fold_in(tf.random.fold_in(tf.stack([seed, 0]), epoch), step)",
        "tf.random.fold_in(tf.stack([seed, 0]), step)", AUGMENTED,
    ),
    mutant(
        "the same augmentation in every batch of an epoch", "training/batches.py",
        "tf.random.fold_in(tf.random.fold_in(tf.stack([seed, 0]), epoch), step)",
        "tf.random.fold_in(tf.stack([seed, 0]), epoch)", AUGMENTED,
    ),
    mutant(
        "the same order in every epoch", "training/batches.py",
        "batch_size, tf.stack([seed, epoch]))", "batch_size, tf.stack([seed, 0]))", EPOCHS,
    ),
    mutant(
        "no shuffling", "tasks/base.py",
        "tf.random.experimental.stateless_shuffle(tf.range(examples), seed)", "tf.range(examples)", EPOCHS,
    ),
    mutant(
        "an expansion repeats the unshifted images", "training/batches.py",
        "augmentation, index // examples,", "augmentation, index * 0,",
        f"{KNOWN}::test_an_epoch_of_an_expansion_has_each_shift_of_each_image_once",
    ),
    mutant(
        "every image is warped, whatever the share", "data/augmentation.py",
        "tf.random.fold_in(seed, 1)) < augmentation.warped", "tf.random.fold_in(seed, 1)) < 1.0",
        "test_augmentation.py::test_the_share_that_is_warped",
    ),
    mutant(
        "images are shifted in one direction only", "data/augmentation.py",
        "tf.random.stateless_uniform([batch, 5], affine_seed, -1.0, 1.0)",
        "tf.random.stateless_uniform([batch, 5], affine_seed, 0.0, 1.0)",
        "test_augmentation.py::test_affine_ranges",
    ),
    # --- adversarial training and generation ---
    mutant(
        "the generator's target reversed", "tasks/adversarial.py",
        "lambda x: tf.nn.softplus(-x)", "lambda x: tf.nn.softplus(x)", GAN,
    ),
    mutant(
        "GAN losses swapped", "tasks/adversarial.py",
        "generator_loss, discriminator_loss = map(shared, losses)",
        "discriminator_loss, generator_loss = map(shared, losses)", GAN,
    ),
    mutant(
        "the discriminator sees no generated images", "tasks/adversarial.py",
        "real_loss + tf.reduce_mean(self.adversarial.generated(fake))", "real_loss", GAN,
    ),
    mutant(
        "the average of the other network", "tasks/generation.py",
        "of_discriminator.use_ema = False", "of_generator.use_ema = False",
        f"{KNOWN}::test_the_average_of_a_gan_is_that_of_its_generator",
    ),
    mutant(
        "the same noise in every step", "tasks/adversarial.py",
        "tf.stack([tf.cast(step, tf.int32), ", "tf.stack([0, ",
        f"{TRAINING}::test_each_replica_of_a_gan_draws_noise_of_its_own",
    ),
    mutant(
        "the schedule on the first optimizer only", "training/callbacks.py",
        "in zip(self.optimizers, self.rates, strict=True):",
        "in zip(self.optimizers[:1], self.rates[:1], strict=True):",
        f"{KNOWN}::test_the_schedule_sets_the_learning_rate_of_both_optimizers",
    ),
    mutant(
        "generated images not scaled", "tasks/generation.py",
        "scale = self.preprocessing.full_scale / (self.preprocessing.high - self.preprocessing.low)", "scale = 1.0",
        SCALE,
    ),
    mutant(
        "generated images cut off, not rounded", "tasks/generation.py",
        "images = tf.round((tf.cast(images, tf.float32)", "images = tf.floor((tf.cast(images, tf.float32)", SCALE,
    ),
    mutant(
        "the seed of generated images ignored", "tasks/generation.py",
        "tf.stack([seed, 0])", "tf.stack([0, 0])", "test_generation.py::test_images_depend_on_the_seed_alone",
    ),
    # --- texts ---
    mutant(
        "language-model targets not shifted", "tasks/language_model.py",
        "for start in (0, 1))", "for start in (0, 0))",
        f"{SEQUENCES}::test_windows_are_consecutive_and_their_targets_are_the_next_characters",
    ),
    mutant(
        "the carried state never used", "tasks/streams.py",
        "ops.where(follows, state[:rows], 0.0)", "ops.zeros_like(state[:rows])",
        f"{SEQUENCES}::test_the_state_is_carried_from_window_to_window_and_reset_where_a_stream_begins",
    ),
    mutant(
        "the carried state never reset", "tasks/streams.py",
        "window == self.last[:rows] + 1", "window >= 0",
        f"{SEQUENCES}::test_the_state_is_carried_from_window_to_window_and_reset_where_a_stream_begins",
    ),
    mutant(
        "windows of a stream in another order", "tasks/language_model.py",
        "tf.transpose(tf.reshape(tf.range(steps * batch_size), [batch_size, steps]))",
        "tf.reshape(tf.range(steps * batch_size), [steps, batch_size])",
        f"{SEQUENCES}::test_windows_are_consecutive_and_their_targets_are_the_next_characters",
    ),
    mutant(
        "padding among the maxima over time", "layers/sequences.py",
        "inputs = ops.where(ops.expand_dims(mask, -1), inputs, ops.cast(lowest, inputs.dtype))", "pass",
        f"{SEQUENCES}::test_padding_changes_neither_a_classifier_nor_its_gradient",
    ),
    mutant(
        "the next character predicted from the padded end of a text", "tasks/characters.py",
        "tf.gather(logits, lengths - 1, batch_dims=1)", "logits[:, -1]",
        f"{SEQUENCES}::test_a_text_has_the_same_outputs_beside_longer_ones",
    ),
    mutant(
        "padding counts in a score", "tasks/characters.py",
        "tf.where(tf.sequence_mask(lengths - 1, tf.shape(targets)[1]), nats, 0.0)", "nats",
        f"{SEQUENCES}::test_a_text_has_the_same_outputs_beside_longer_ones",
    ),
    mutant(
        "the temperature ignored", "tasks/characters.py",
        "/ tf.maximum(temperature, 1e-6)", "", "test_generation.py",
    ),
    mutant(
        "top_k ignored", "tasks/characters.py",
        "allowed = (top_k == 0) | (tf.range(logits.shape[-1]) < top_k)", "allowed = top_k >= 0", "test_generation.py",
    ),
    mutant(
        "top_p ignored", "tasks/characters.py",
        "allowed &= tf.cumsum(shares, axis=-1, exclusive=True) < top_p", "pass", "test_generation.py",
    ),
    mutant(
        "weight drop ignored", "layers/sequences.py",
        "kernel = keras.random.dropout(kernel, self.weight_drop, seed=self.weight_drop_seed)", "pass",
        f"{SEQUENCES}::test_dropout_in_training_alone",
    ),
    mutant(
        "text labels rolled by one", "tasks/text_classification.py",
        "tf.one_hot(labels, len(self.classes))", "tf.one_hot((labels + 1) % len(self.classes), len(self.classes))",
        f"{SEQUENCES}::test_a_text_classifier_learns_which_of_two_words_a_text_contains",
    ),
    # --- classification ---
    mutant(
        "class names in alphabetical order", "tasks/classification.py",
        "tf.constant(task.classes)", "tf.constant(sorted(task.classes))",
        f"{SEQUENCES}::test_a_text_classifier_learns_which_of_two_words_a_text_contains",
    ),
    mutant(
        "probabilities without a softmax", "layers/activations.py",
        'return ops.softmax(-scores if kind == "distances" else scores)',
        'return -scores if kind == "distances" else scores',
        "test_layers.py::test_probabilities_of_logits_and_distances_are_a_softmax",
    ),
    mutant(
        "distances taken for logits", "layers/activations.py",
        'ops.softmax(-scores if kind == "distances" else scores)', "ops.softmax(scores)",
        "test_layers.py::test_probabilities_of_logits_and_distances_are_a_softmax",
    ),
    mutant(
        "sigmoid activations not divided by their sum", "layers/activations.py",
        "scores = ops.minimum(scores, 0.0) - ops.log(1.0 + ops.exp(-ops.abs(scores)))",
        "return ops.sigmoid(scores)",
        "test_layers.py::test_probabilities_of_sigmoid_logits_are_the_activations_divided_by_their_sum",
    ),
    mutant(
        "label smoothing ignored", "tasks/classification.py",
        "losses.classification_loss(recipe.loss, recipe.options.label_smoothing)",
        "losses.classification_loss(recipe.loss, 0.0)",
        f"{KNOWN}::test_steps_of_softmax_regression_are_gradient_descent_with_momentum",
    ),
    mutant(
        "the accuracy of distances is that of the farthest class", "tasks/losses.py",
        "zoo_layers.probabilities(y_pred, outputs))", "y_pred)", "test_losses.py",
    ),
    # --- segmentation ---
    mutant(
        "the threshold of two classes ignored", "tasks/segmentation.py",
        "        if self.thresholds:", "        if False:",
        f"{SEGMENTATION}::test_the_threshold_has_the_best_validation_score",
    ),
    mutant(
        "thresholds of overlapping classes ignored", "tasks/segmentation.py",
        "tf.constant(self.thresholds or 0.5, tf.float32)", "0.5",
        f"{SEGMENTATION}::test_overlapping_classes_have_their_own_masks_and_thresholds",
    ),
    mutant(
        "ignored pixels count in the loss", "tasks/segmentation.py",
        "weight = known * weights[0] if weights else known", "weight = weights[0] if weights else known * 0 + 1",
        f"{KNOWN}::test_a_weighted_loss_of_masks_by_hand",
    ),
    mutant(
        "ignored pixels count in the metrics", "tasks/mask_ops.py",
        "known = tf.cast(targets[..., -1:] > 0, tf.float32)", "known = tf.cast(targets[..., -1:] >= 0, tf.float32)",
        f"{SEGMENTATION}::test_metrics_equal_those_of_scikit_learn",
    ),
    mutant(
        "metrics of the last batch only", "tasks/mask_ops.py",
        "self.counts.assign_add(", "self.counts.assign(",
        f"{SEGMENTATION}::test_metrics_equal_those_of_scikit_learn",
    ),
    mutant(
        "border weights ignored", "tasks/segmentation.py",
        "weight = known * weights[0] if weights else known", "weight = known",
        f"{KNOWN}::test_a_weighted_loss_of_masks_by_hand",
    ),
    mutant(
        "border weights added to those of known pixels", "tasks/segmentation.py",
        "weight = known * weights[0] if weights else known", "weight = known + weights[0] if weights else known",
        f"{KNOWN}::test_a_weighted_loss_of_masks_by_hand",
    ),
    mutant(
        "the loss does not weight pixels", "tasks/mask_ops.py",
        "tf.reduce_mean(weights * part[overlapping](masks, logits))",
        "tf.reduce_mean(part[overlapping](masks, logits))",
        f"{SEGMENTATION}::test_losses_weight_pixels_and_leave_out_ignored_ones",
    ),
    # --- preprocessing ---
    mutant(
        "resizing without antialiasing", "preprocessing.py",
        "reach = 2 * tf.maximum(inputs, outputs)", "reach = 2 * outputs",
        "test_preprocessing.py::test_resizing_by_its_definition_and_as_tensorflow_does_it",
    ),
    mutant(
        "all padding below and on the right", "preprocessing.py",
        "((margin // 2, margin - margin // 2) for margin in margins)", "((0, margin) for margin in margins)",
        "test_preprocessing.py::test_padding_and_range",
    ),
    mutant(
        "bands not divided by their standard deviation", "preprocessing.py",
        "/ tf.constant(preprocessing.std)", "/ 1.0",
        "test_preprocessing.py::test_mean_and_standard_deviation",
    ),
    # --- users' data ---
    mutant(
        "EXIF orientation ignored", "data/decoding.py",
        "image, turned = _upright(image)", "turned = False", "test_user_data.py",
    ),
    mutant(
        "transparency dropped", "data/decoding.py",
        "pixels = composited(layers, background)", "pixels = layers[..., :-1]", "test_user_data.py",
    ),
    mutant(
        "a split is any folder whose name begins so", "data/dataset.py",
        "re.fullmatch(rf\"({pattern})([ _-]?(set|data))?\"", "re.match(rf\"({pattern})([ _-]?(set|data))?\"",
        "test_user_data.py::test_folders_and_archives_as_people_have_them",
    ),
    mutant(
        "the average of the weights does not rise", "training/optimizers.py",
        "return keras.ops.minimum(self.highest, 1 - (1 + step) ** -power)", "return self.highest",
        f"{TRAINING}::test_the_averaged_weights_are_validated_and_kept",
    ),
    mutant(
        "precision and recall exchanged", "training/classified.py",
        "precision, recall, _, examples = metrics", "recall, precision, _, examples = metrics", "test_user_data.py",
    ),
    # --- samples ---
    mutant(
        "coverage counts balls of generated images", "tasks/sample_metrics.py",
        "inside, held = _within(generated, real, _radii(real, k))",
        "inside, held = _within(real, generated, _radii(generated, k))",
        "test_sample_metrics.py",
    ),
    mutant(
        "images without a label count as class -1", "data/dataset.py",
        "UNLABELED not in self.targets", "True", "test_semi_supervised.py",
    ),
    # --- color ---
    mutant(
        "rates by weight ignored", "training/optimizers.py",
        "rate * recipe.rate_factors.get(name, 1.0)", "rate", "test_color.py",
    ),
    mutant(
        "the slow weights are never taken over", "training/callbacks.py",
        "fast.assign(slow)", "pass", "test_color.py",
    ),
    # --- training ---
    mutant(
        "weight decay of biases", "training/optimizers.py",
        'var_names=["bias", "beta", "gamma"]', 'var_names=["beta", "gamma"]',
        f"{TRAINING}::test_weight_decay_is_an_l2_gradient_that_leaves_biases_alone",
    ),
    mutant(
        "averaged weights not validated", "training/trainer.py",
        "if any(map(keeps_average, optimizers)) else []", "if False else []",
        f"{TRAINING}::test_the_averaged_weights_are_validated_and_kept",
    ),
    mutant(
        "the best epoch is the last one", "training/callbacks.py",
        "return ranks.index(max(ranks)) + 1", "return len(ranks)",
        f"{TRAINING}::test_the_weights_are_those_of_the_best_validation",
    ),
    mutant(
        "the test split chooses the epoch", "training/trainer.py",
        'validating = functools.partial(evaluation_batches, task, dataset.splits["validation"], replicas=replicas)',
        'validating = functools.partial(evaluation_batches, task, dataset.splits["test"], replicas=replicas)',
        f"{TRAINING}::test_the_test_split_is_read_once_and_with_the_best_weights",
    ),
    mutant(
        "patience off by one", "training/callbacks.py",
        "waited >= self.patience", "waited > self.patience", f"{TRAINING}::test_patience_ends_the_run",
    ),
    mutant(
        "statistics of batch normalization not measured", "training/trainer.py",
        '        measure_normalization(task, model, dataset.splits["train"])', "        pass",
        f"{TRAINING}::test_batch_normalization_is_measured_on_images_as_they_are",
    ),
    mutant(
        "normalization measured where no image has a label", "training/normalization.py",
        "split.labeled().sample(EXAMPLES_TO_MEASURE)", "split.sample(EXAMPLES_TO_MEASURE)",
        "test_semi_supervised.py::test_normalization_is_measured_where_few_of_many_images_have_a_label",
    ),
    mutant(
        "a stage's batch size ignored", "training/fine_tuning.py",
        "stage.batch_size or recipe.batch_size", "recipe.batch_size",
        "test_color.py::test_fine_tuning_takes_smaller_batches_and_no_averages_of_a_long_training",
    ),
    mutant(
        "Fréchet distances in float32", "tasks/sample_metrics.py",
        'self.add_variable(shape, "zeros", dtype="float64",', 'self.add_variable(shape, "zeros", dtype="float32",',
        "test_sample_metrics.py::test_the_distance_of_features_that_hardly_vary_is_not_rounded_away",
    ),
    mutant(
        "a resumed run counts epochs from 0", "training/trainer.py",
        '"initial_epoch": len(history.rows),', '"initial_epoch": 0,',
        "test_python_api.py::test_an_interrupted_run_ends_as_an_uninterrupted_one",
    ),
    mutant(
        "a resumed run repeats the first epochs' batches", "training/trainer.py",
        '"first_epoch": len(history.rows)', '"first_epoch": 0',
        "test_python_api.py::test_an_interrupted_run_ends_as_an_uninterrupted_one",
    ),
    mutant(
        "a resumed run forgets the optimizer's state", "training/trainer.py",
        "[*trainer.variables, *optimized, *(", "[*trainer.variables, *(",
        "test_python_api.py::test_an_interrupted_run_ends_as_an_uninterrupted_one",
    ),
    mutant(
        "another run in the same directory accepted", "training/runs.py",
        "    if changed := [key for key in record if found.get(key) != record[key]]:", "    if changed := []:",
        f"{TRAINING}::test_another_run_in_the_same_directory_is_refused",
    ),
    mutant(
        "all devices draw the same dropout mask", "training/randomness.py",
        "tf.stack([replica, 0])", "tf.stack([0 * replica, 0])",
        f"{TRAINING}::test_each_replica_draws_a_dropout_mask_of_its_own",
    ),
    mutant(
        "each machine takes the first part of a batch", "training/batches.py",
        "return slice(self.first * part, (self.first + self.own) * part)", "return slice(0, self.own * part)",
        "test_workers.py::test_the_shares_of_all_machines_are_the_batch",
    ),
    mutant(
        "workers with other data train together", "training/workers.py",
        "        if different.any()", "        if not different.all() and False",
        "test_workers.py::test_workers_with_something_else_are_refused",
    ),
    mutant(
        "another worker does not get the chief's run", "training/workers.py",
        "    size = int(_total(strategy,", "    size = 0 * int(_total(strategy,",
        "test_workers.py::test_where_one_is_killed_the_others_stop_and_the_run_resumes",
    ),
    mutant(
        "a reader prepares another's batches", "training/batches.py",
        ".shard(count, number)", ".shard(count, 0 * number)",
        "test_readers.py::test_a_training_with_readers_is_the_one_without",
    ),
    mutant(
        "the batches of one reader alone", "training/readers.py",
        "in itertools.cycle(parts):", "in itertools.cycle(parts[:1]):",
        "test_readers.py::test_a_training_with_readers_is_the_one_without",
    ),
    mutant(
        "the caller's random state lost", "training/randomness.py",
        "np.random.set_state(state[1])", "pass",
        "test_python_api.py::test_the_callers_random_numbers_continue_as_if_nothing_had_been_trained",
    ),
    mutant(
        "a given optimizer ignored", "training/optimizers.py",
        "    if given.optimizer is None:", "    if True:",
        "test_python_api.py::test_a_given_optimizer_and_a_given_loss_train_as_those_of_the_recipe",
    ),
    mutant(
        "validation scores reported as those of test", "training/trainer.py",
        'measured = {name: dataset.splits[name] for name in ("validation", "test")}',
        'measured = {name: dataset.splits["validation"] for name in ("validation", "test")}',
        f"{TRAINING}::test_the_test_split_is_read_once_and_with_the_best_weights",
    ),
    # --- fine-tuning ---
    mutant(
        "a head of the same shape not re-initialized", "training/fine_tuning.py",
        "head = () if task.classes == kept else spec.head",
        "head = () if len(task.classes) == len(kept) else spec.head",
        f"{TRAINING}::test_other_classes_get_a_fresh_head_whatever_their_number",
    ),
    mutant(
        "frozen layers trained", "training/fine_tuning.py",
        "layer.trainable = any(", "layer.trainable = True or any(",
        f"{TRAINING}::test_other_classes_get_a_fresh_head_and_frozen_layers_do_not_change",
    ),
    mutant(
        "a stage begins with the last weights, not the best", "training/fine_tuning.py",
        "if rank >= best_rank:", "if True:",
        f"{TRAINING}::test_a_stage_begins_with_and_a_run_ends_with_the_best_weights",
    ),
    # --- data ---
    mutant(
        "splits not stratified", "data/dataset.py",
        "random_state=seed, stratify=labels)", "random_state=seed, stratify=None)",
        "test_data.py::test_held_out_splits_share_nothing_are_stratified_and_follow_the_seed",
    ),
    mutant(
        "the fingerprint leaves targets out", "data/dataset.py",
        "for array in (splits[name].inputs, splits[name].targets):", "for array in (splits[name].inputs,):",
        "test_data.py::test_the_fingerprint_follows_content_alone",
    ),
    # --- artifacts ---
    mutant(
        "sha256 of files not checked", "artifacts/manifest.py",
        'if sha256(path / relative) != listed[relative]["sha256"]:', "if False:",
        f"{ARTIFACTS}::test_what_was_changed_is_refused_everywhere",
    ),
    mutant(
        "the manifest's format not checked", "artifacts/manifest.py",
        'if manifest.get("format", FORMAT) != FORMAT:', "if False:",
        f"{ARTIFACTS}::test_what_was_changed_is_refused_everywhere",
    ),
    mutant(
        "golden examples compared with tolerance 1", "artifacts/verification.py",
        "TOLERANCE = 1e-5", "TOLERANCE = 1.0",
        f"{ARTIFACTS}::test_other_golden_outputs_are_refused",
    ),
    mutant(
        "a manifest other than the published one accepted", "artifacts/lookup.py",
        "if listed and listed[0] != sha256(path / MANIFEST):", "if False:",
        f"{ARTIFACTS}::test_a_manifest_other_than_the_published_one_is_refused",
    ),
    mutant(
        "signatures that change variables allowed", "artifacts/operations.py",
        'CHANGING = frozenset("AssignVariableOp ', 'CHANGING = frozenset("',
        "test_hardening.py::test_a_graph_that_keeps_a_request_is_refused",
    ),
    mutant(
        "arrays of a checkpoint may share their bytes", "checkpoint.py",
        "if entry.offset < end:", "if False:",
        "test_hardening.py::test_arrays_that_share_their_bytes_are_refused",
    ),
    mutant(
        "networks of any size built", "artifacts/rebuilding.py",
        "if left_arrays < 0 or left_numbers < 0:", "if False:",
        "test_hardening.py::test_no_network_is_larger_than_its_weights_file",
    ),
    mutant(
        "any operation allowed in a graph", "artifacts/operations.py",
        "_refuse(path, {node.op for node in everything} - functions.keys() - ALLOWED - SAVING)",
        "_refuse(path, set())",
        f"{ARTIFACTS}::test_graphs_with_other_operations_are_refused_and_not_run",
    ),
    mutant(
        "the alias chosen by test, not validation", "artifacts/index.py",
        'score = entry["validation"]', 'score = entry["test"]',
        f"{ARTIFACTS}::test_the_default_is_the_best_on_validation",
    ),
    mutant(
        "surplus weights skipped in silence", "weights.py",
        "for key in [*fresh, *skipped]:", "for key in fresh:",
        f"{ARTIFACTS}::test_weights_that_do_not_fit_change_nothing",
    ),
    mutant(
        "lower_is_better ignored", "metrics.py",
        "return -value if self.lower_is_better else value", "return value",
        f"{SEQUENCES}::test_a_language_model_reaches_the_entropy_of_its_source",
    ),
    # --- export and reproduction ---
    mutant(
        "storage auto rounds without comparing predictions", "exporting/saved_model.py",
        "if not np.array_equal(before, after):", "if False:",
        f"{REPRODUCTION}::test_auto_takes_float32_where_a_class_changes",
    ),
    mutant(
        "the scores of several runs are those of the best", "exporting/saved_model.py",
        'tested = [one.metrics["test"][metric] for one', 'tested = [runs[0].metrics["test"][metric] for one',
        f"{REPRODUCTION}::test_the_best_on_validation_is_written_with_the_scores_of_all",
    ),
    mutant(
        "any score counts as reproduced", "training/reproduction.py",
        "if not low <= measured <= high:", "if False:",
        f"{REPRODUCTION}::test_another_score_is_not_reproduced",
    ),
    mutant(
        "reproduction on other data", "training/runs.py",
        'if dataset.fingerprint != record["data"].get("fingerprint"):', "if False:",
        f"{REPRODUCTION}::test_what_cannot_be_reproduced",
    ),
    mutant(
        "an ensemble's vote is the mean", "models/ensemble.py",
        '        if method == "vote":', "        if False:",
        "test_ensemble.py::test_votes_and_ties",
    ),
    # --- tiles and serving ---
    mutant(
        "tiles added up without weights", "tiling/tiles.py",
        "result()[rows.pixels, columns.pixels] += weights * probabilities",
        "result()[rows.pixels, columns.pixels] = probabilities",
        "test_tiling.py::test_tiles_equal_the_whole",
    ),
    mutant(
        "the server accepts true and false as numbers", "serving/values.py",
        "        allowed = {int, float}", "        allowed = {int, float, bool}",
        "test_serving.py::test_bad_request",
    ),
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD", help="only mutants whose names contain it")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    parser.add_argument("--write", action="store_true", help="write the table into tests/README.md")
    options = parser.parse_args()
    check(MUTANTS)
    chosen = [one for one in MUTANTS if options.only in one.name]
    if options.write and options.only:
        parser.error("--write needs the whole table: leave --only out")
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies = [copy_of_checkout(Path(folder) / str(number)) for number in range(options.jobs)]
        code, output = run_tests(copies[0], sorted({node for one in chosen for node in one.nodes}), None)
        if code != PASSED:
            sys.exit(f"the tests do not pass without a mutant:\n{output}")
        killers = killers_of(chosen, copies)
    table = markdown(chosen, killers)
    print(table)
    if options.write:
        head, rest = README.read_text().split(MARKS[0])
        README.write_text(f"{head}{MARKS[0]}\n\n{table}\n\n{MARKS[1]}{rest.split(MARKS[1])[1]}")
    return int(None in killers)


def check(mutants: tuple[Mutant, ...]) -> None:
    """Ends the program unless each mutant can be applied and has a name of its own."""
    for one in mutants:
        found = (ROOT / one.path).read_text().count(one.old)
        if found != 1 or "\n" in one.old:
            sys.exit(f"mutant {one.name!r}: {one.old!r} occurs {found} times in {one.path}, not once: write it anew")
    if len({one.name for one in mutants}) < len(mutants):
        sys.exit("two mutants have the same name")


def copy_of_checkout(folder: Path) -> Path:
    """A copy of what is changed and run; everything else, such as the weights, is linked."""
    folder.mkdir()
    for entry in ROOT.iterdir():
        if entry.name in ("zoo", "tests"):
            shutil.copytree(entry, folder / entry.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry)
    return folder


def run_tests(copy: Path, nodes: list[str], timeout: float | None = TIMEOUT) -> tuple[int, str]:
    """Pytest's exit code and output for tests in a copy, which end with the first failure, or fail after `timeout`."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "", *nodes]
    # no bytecode: it would be taken for that of the next mutant of a file, which may be as long and as old
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return FAILED, f"FAILED {nodes[0]} (no end within {timeout} seconds)"
    return done.returncode, done.stdout + done.stderr


@contextlib.contextmanager
def applied(one: Mutant, copy: Path) -> Iterator[None]:
    """The copy with the mutant in it."""
    file = copy / one.path
    source = file.read_text()
    file.write_text(source.replace(one.old, one.new))
    try:
        yield
    finally:
        file.write_text(source)


def killers_of(mutants: list[Mutant], copies: list[Path]) -> list[str | None]:
    """The first test that fails for each mutant, None for one that survives; ends the program where the tests do not
    run."""
    free: queue.Queue[Path] = queue.Queue()
    for copy in copies:
        free.put(copy)

    def run(one: Mutant) -> str | None:
        copy = free.get()
        try:
            with applied(one, copy):
                code, output = run_tests(copy, one.nodes)
        finally:
            free.put(copy)
        if code not in (PASSED, FAILED):
            sys.exit(f"mutant {one.name!r}: pytest ends with code {code}:\n{output}")
        failed = re.findall(r"^(?:FAILED|ERROR) tests/([\w.:]+)", output, re.MULTILINE)  # without its parameters
        killer = failed[0] if code == FAILED else None
        print(f"{one.name}: {killer or 'SURVIVES'}", file=sys.stderr, flush=True)
        return killer

    with concurrent.futures.ThreadPoolExecutor(len(copies)) as pool:
        return list(pool.map(run, mutants))


def markdown(mutants: list[Mutant], killers: list[str | None]) -> str:
    rows = ["| mutant | where | killed by |", "|---|---|---|"]
    for one, killer in zip(mutants, killers, strict=True):
        rows.append(f"| {one.name} | `{one.path}` | {f'`{killer}`' if killer else '**none: it survives**'} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
