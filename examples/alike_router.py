"""A router that keeps prompts of one size together, where memory decides.

python -m experiments.run --scenario kv-bound --policies corr-tuned --router examples/alike_router.py:alike
"""

from preserve_gym import router


@router(reads="kv")
def alike(view, request):
    """Least KV use, and 0.3 times how unlike the prompt is to those there; ties to the lowest slot."""
    best, least = -1, 0.0
    for i in view.ready[: view.n_ready]:
        unlike = 0.0
        if view.in_flight[i] > 0:
            mean = view.prompt_tokens[i] / view.in_flight[i]
            unlike = abs(request.prompt_tokens - mean) / (request.prompt_tokens + mean)
        score = view.blocks_used[i] / view.kv_blocks + 0.3 * unlike
        if best < 0 or score < least:
            best, least = i, score
    return best
