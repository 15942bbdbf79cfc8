"""Shared by all tests: fixed seeds, a cache folder of their own, one thread."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# Not fast: whole training runs, processes of several ranks, compilation, many steps under Triton's interpreter. What is
# not listed is expected to take less than a second. Whole files, and tests by their whole names.
LONG = {
    "tests/assignment/test_assign.py::test_more_classes_than_a_product_that_is_kept",
    "tests/assignment/test_background.py::test_exit_codes_with_pending_and_ended_renewals",
    "tests/assignment/test_column_generation.py::test_column_generation_is_optimal_and_certified",
    "tests/assignment/test_column_generation.py::test_dense_is_optimal_and_certified",
    "tests/assignment/test_column_generation.py::test_larger_instances",
    "tests/assignment/test_default_dtypes.py::test_autocast_does_not_reach_assignment_or_alignment",
    "tests/assignment/test_lapjv.py::test_a_thousand_classes_are_certified",
    "tests/assignment/test_lapjv.py::test_class_means",
    "tests/assignment/test_lapjv.py::test_ties_do_not_hang",
    "tests/assignment/test_scipy_form.py::test_some_hundred_matrices_of_every_kind",
    "tests/assignment/test_scores_gpu.py::test_a_warm_start_and_an_unchanged_one",
    "tests/assignment/test_scores_gpu.py::test_a_warm_start_with_unseen_rows",
    "tests/assignment/test_scores_gpu.py::test_align_on_the_kernels",
    "tests/assignment/test_scores_gpu.py::test_no_tensor_has_the_size_of_the_matrix",
    "tests/assignment/test_scores_gpu.py::test_recheck_finds_the_gap",
    "tests/benchmarks/test_command.py::test_a_report_is_written_into_an_empty_folder",
    "tests/benchmarks/test_pages.py::test_tall_pictures_are_drawn",
    "tests/benchmarks/test_plugin.py",
    "tests/cli/test_command_runner.py::test_interruption_says_how_to_go_on",
    "tests/cli/test_command_runner.py::test_the_advice_is_of_this_command",
    "tests/cli/test_commands.py::test_train_resume_and_predict",
    "tests/cli/test_embed_command.py::test_a_folder_of_several_parts_is_refused",
    "tests/cli/test_embed_command.py::test_a_folder_without_classes_has_no_labels",
    "tests/cli/test_embed_command.py::test_an_existing_file_stays_if_nothing_can_be_read",
    "tests/cli/test_embed_command.py::test_features_labels_and_paths",
    "tests/cli/test_export_command.py::test_a_file_that_computes_something_else_is_refused",
    "tests/cli/test_export_command.py::test_a_folder_of_pictures_by_a_convolutional_network",
    "tests/cli/test_export_command.py::test_a_program_of_torch",
    "tests/cli/test_export_command.py::test_a_run_in_bfloat16",
    "tests/cli/test_export_command.py::test_onnx_labels_a_folder_as_predict_does",
    "tests/cli/test_predict_command.py::test_a_folder_as_a_table",
    "tests/cli/test_predict_command.py::test_a_large_batch_and_few_open_files",
    "tests/cli/test_predict_command.py::test_an_existing_table_stays_if_nothing_can_be_read",
    "tests/cli/test_predict_command.py::test_unreadable_files_are_named_and_skipped",
    "tests/cli/test_prototypes_command.py::test_prototypes_command",
    "tests/cli/test_prototypes_command.py::test_prototypes_made_by_hand_are_trained_on",
    "tests/cli/test_test_command.py",
    "tests/compat/test_integrations.py",
    "tests/compat/test_lazy_names.py::test_importing_needs_none_of_them",
    "tests/compat/test_lightning.py",
    "tests/compat/test_pml.py::test_its_tester_takes_a_backbone_trained_with_it",
    "tests/compat/test_ranks.py",
    "tests/compat/test_transformers.py::test_a_loader_without_a_length",
    "tests/compat/test_transformers.py::test_a_resumed_run_and_accumulated_batches",
    "tests/compat/test_transformers.py::test_epochs_are_counted_by_the_loader",
    "tests/data/test_picture_cache.py::test_two_processes_at_once",
    "tests/data/test_training_on_sets.py::test_two_steps",
    "tests/docs/test_site.py::test_the_site_builds_without_a_warning",
    "tests/docs/test_snippets.py::test_python_blocks_of_a_page",
    "tests/heads/test_averaging.py::test_callbacks_of_lightning",
    "tests/heads/test_baseline_prototypes.py::test_semantic_prototypes_keep_the_order_of_the_words",
    "tests/heads/test_compiled.py::test_compiled_equals_eager",
    "tests/heads/test_compiled.py::test_compiled_training_equals_eager",
    "tests/heads/test_distributed.py",
    "tests/heads/test_empty_batches.py::test_no_samples_in_a_compiled_step",
    "tests/heads/test_export.py::test_graphs_of_an_average_give_the_newest_labels_or_an_error",
    "tests/heads/test_export.py::test_graphs_predict_the_same_for_other_batches",
    "tests/heads/test_flat_in_classes.py::test_a_compiled_step_does_not_grow_with_the_classes",
    "tests/heads/test_head_on_kernels.py::test_compiled_on_the_kernels",
    "tests/heads/test_head_on_kernels.py::test_five_runs_same_bits",
    "tests/heads/test_losses.py::test_compiled_losses_equal_eager_ones",
    "tests/heads/test_mixup.py::test_a_bad_share_in_a_compiled_step_is_said_later",
    "tests/kernels/test_centre_factors.py::test_many_parts_and_rows_with_strides",
    "tests/kernels/test_centre_factors.py::test_the_same_bits_again",
    "tests/kernels/test_gaussian_potential.py::test_runs_have_the_same_bits",
    "tests/kernels/test_log_sum_exp.py::test_sweeps_balance_the_columns",
    "tests/kernels/test_top_scores.py::test_rising_scores_replace_every_key",
    "tests/kernels/test_top_scores.py::test_runs_have_the_same_bits",
    "tests/kernels/test_update_class_means.py::test_parts_beyond_one_block_of_walks_and_weights_beyond_float32",
    "tests/kernels/test_update_class_means.py::test_rows_that_are_not_contiguous",
    "tests/kernels/test_update_class_means.py::test_runs_have_the_same_bits",
    "tests/ops/test_backend.py::test_setting_the_interpreter_too_late_is_refused",
    "tests/ops/test_gaussian_potential.py::test_compiled_gaussian_potential_equals_eager",
    "tests/ops/test_ipm_loss.py::test_compiled_equals_eager",
    "tests/ops/test_registration.py::test_registered_operators",
    "tests/ops/test_row_ops_on_kernels.py::test_registered_operators_on_the_kernels",
    "tests/ops/test_uniformity_loss.py::test_compiled_uniformity_loss_equals_eager",
    "tests/ops/test_uniformity_loss_on_kernels.py::test_compiled_on_the_kernels",
    "tests/ops/test_uniformity_loss_on_kernels.py::test_five_runs_same_bits",
    "tests/ops/test_uniformity_loss_on_kernels.py::test_registered_operators_on_the_kernels",
    "tests/ops/test_update_class_means.py::test_a_thousand_multisets",
    "tests/ops/test_update_class_means.py::test_multisets_on_the_kernels",
    "tests/package/test_inspect_kernels.py",
    "tests/package/test_layering.py::test_imports_stay_light",
    "tests/package/test_packaging.py::test_every_module_of_the_wheel_is_importable",
    "tests/prototypes/test_effort.py::test_best_is_the_whole_search",
    "tests/prototypes/test_effort.py::test_ninety_nine_percent_of_the_way_from_random_to_the_best",
    "tests/prototypes/test_effort.py::test_the_max_cosine_too",
    "tests/prototypes/test_search.py::test_a_population_ends_where_the_best_of_many_descents_does",
    "tests/scripts/test_gpu_check.py::test_a_step_that_takes_too_long_is_stopped",
    "tests/scripts/test_gpu_check.py::test_a_step_yields_what_json_can_hold",
    "tests/scripts/test_gpu_check.py::test_steps_in_one_process_keep_their_results",
    "tests/scripts/test_integrations.py::test_only_what_is_missing_is_trained",
    "tests/scripts/test_launchers.py",
    "tests/scripts/test_report.py::test_check_names_what_is_stale_and_writes_nothing",
    "tests/scripts/test_reproduce.py",
    "tests/training/test_background_renewals.py::test_an_error_of_the_thread_ends_the_run",
    "tests/training/test_background_renewals.py::test_steps_go_on_while_a_renewal_is_solved",
    "tests/training/test_class_means_files.py::test_class_means_are_saved_as_a_renewal_finds_them",
    "tests/training/test_fit.py",
    "tests/training/test_heads_by_name.py::test_losses_of_the_prototype_head",
    "tests/training/test_heads_by_name.py::test_ours_on_what_a_softmax_run_has_learned",
    "tests/training/test_heads_by_name.py::test_trained_by_name",
    "tests/training/test_initial_assignment.py::test_initial_assignments",
    "tests/training/test_interruption.py",
    "tests/training/test_loggers.py",
    "tests/training/test_pretrained.py::test_a_run_begins_with_them_and_resumes_without_the_file",
    "tests/training/test_pretrained.py::test_all_but_a_last_layer_of_another_width_is_taken",
    "tests/training/test_recipes.py::test_a_recipe_trains",
    "tests/training/test_renewals.py::test_early_alignments_turn_prototypes_and_a_run_resumes",
    "tests/training/test_resume.py",
    "tests/training/test_steps.py::test_a_mixed_and_weighted_run_resumes",
    "tests/training/test_steps.py::test_momentum_is_that_of_the_settings_after_a_resume",
    "tests/training/test_steps.py::test_shares_follow_the_beta_distribution",
}

# A background job ignores SIGINT, and so would the commands that the tests start and interrupt.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)  # the tests' operations are small: a second thread costs more than it gives

# kernels: without a GPU they run under Triton's interpreter, which must be chosen before they are imported
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Not the user's. Of the session, because fixtures of a session or module run before those of a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(autouse=True)
def _fixed() -> None:
    """Fixtures of a session or module run before: those that draw random numbers set the seed themselves."""
    torch.manual_seed(0)


@pytest.fixture
def root() -> Path:
    """The repository."""
    return Path(__file__).parents[1]


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as fast the first case of every test, but for those of ``LONG`` and the slow ones."""
    seen = set()
    for item in items:
        test = item.nodeid.partition("[")[0]
        file = test.partition("::")[0]
        if test not in seen and not LONG.intersection((test, file)) and item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.fast)
        seen.add(test)


def pytest_configure(config: pytest.Config) -> None:
    # kernels: the interpreter of Triton up to 3.6 does so
    config.addinivalue_line("filterwarnings", "ignore:Conversion of an array with ndim > 0:DeprecationWarning")
    # pictures: older matplotlib calls names that pyparsing has since renamed
    config.addinivalue_line("filterwarnings", "ignore:'[a-zA-Z]+' (argument is )?deprecated[, ]:DeprecationWarning")
    # torch.compile: what it says on Python 3.13.0 alone
    config.addinivalue_line("filterwarnings", "ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")
    # torch.compile of torch 2.9, of any autograd.Function
    config.addinivalue_line("filterwarnings", "ignore:.*Function'> should not be instantiated:DeprecationWarning")
