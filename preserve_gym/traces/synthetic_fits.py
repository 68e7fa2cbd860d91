"""The figures of the synthetic services, fitted to public traces of Azure's LLM services.

Sources (Azure/AzurePublicDataset, CC BY 4.0):

* AzureLLMInferenceTrace 2023 (Patel et al., "Splitwise", ISCA 2024), one hour each of a conversation
  and a code service: lengths, silence, ripple and bin noise;
* AzureLLMInferenceDataset 2024 (Stojkovic et al., "DynamoLLM", HPCA 2025), counts of one week (UTC): the
  profiles of a weekday and of the weekend, the swell around them, and what is slow within an hour.

``tests/fit_synthetic.py`` is the recipe, and a test asserts that it gives these figures again. Two
things to know: an hour is a small sample of ripple and silence; and the services of 2024, eight and eleven
times larger than those of 2023, are smoother inside an hour. The figures are for the size of 2023: what
was measured in 2024 has its variance multiplied by the ratio of the rates.
"""

from __future__ import annotations

from dataclasses import dataclass

from preserve_gym.traces.length_mix import LengthMix
from preserve_gym.traces.modulation import ArrivalPattern, Modulation, Silence


@dataclass(frozen=True)
class ServiceFit:
    """What ``synthetic_trace`` needs to know of a service.

    Attributes:
        default_rate_rps: requests per second over a weekday unless the caller sets it (not fitted).
        hourly_rate: mean rate of each hour of a weekday (UTC) over that of the day.
        weekend_rate: mean rate of each hour of a Saturday or Sunday over that of a weekday.
        swell, slow, ripple: modulation over hours, over tens of minutes, and over seconds to minutes.
        bin_variance: variance of the gamma noise in a bin of 0.5 s, mean 1.
        silence: its busy and idle periods, or None if it never falls silent.
        length_correlation: Spearman's rank correlation of prompt and output tokens, in [-1/3, 1/3].
        prompt_quantiles, output_quantiles: tokens at each of ``QUANTILE_LEVELS``.
    """

    default_rate_rps: float
    hourly_rate: tuple[float, ...]
    weekend_rate: tuple[float, ...]
    swell: Modulation
    slow: Modulation
    ripple: Modulation
    bin_variance: float
    silence: Silence | None
    length_correlation: float
    prompt_quantiles: tuple[int, ...]
    output_quantiles: tuple[int, ...]

    @property
    def pattern(self) -> ArrivalPattern:
        """How the rate moves around its profile."""
        return ArrivalPattern((self.swell, self.slow, self.ripple), self.bin_variance, self.silence)

    @property
    def lengths(self) -> LengthMix:
        """Tokens of the requests."""
        return LengthMix(
            QUANTILE_LEVELS, self.prompt_quantiles, self.output_quantiles, self.length_correlation
        )


# fmt: off
QUANTILE_LEVELS: tuple[float, ...] = (
    0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.225, 0.25, 0.275, 0.3, 0.325,
    0.35, 0.375, 0.4, 0.425, 0.45, 0.475, 0.5, 0.525, 0.55, 0.575, 0.6, 0.625, 0.65, 0.675, 0.7, 0.725, 0.75,
    0.775, 0.8, 0.825, 0.85, 0.875, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995, 0.9975, 0.999, 0.9995, 1,
)

SERVICES: dict[str, ServiceFit] = {
    "chat": ServiceFit(
        default_rate_rps=8.0,
        hourly_rate=(
            0.89, 0.964, 0.964, 0.791, 0.799, 0.867, 1.01, 1.081, 1.111, 1.079, 0.98, 1.027, 1.142, 1.273,
            1.337, 1.249, 1.135, 1.078, 1.082, 1.02, 0.931, 0.77, 0.696, 0.721,
        ),
        weekend_rate=(
            0.502, 0.531, 0.529, 0.456, 0.431, 0.451, 0.468, 0.522, 0.538, 0.486, 0.519, 0.577, 0.62,
            0.695, 0.698, 0.721, 0.683, 0.673, 0.634, 0.593, 0.615, 0.58, 0.525, 0.576,
        ),
        swell=Modulation(log_std=0.094, correlation_s=32400.0),
        slow=Modulation(log_std=0.162, correlation_s=1200.0),
        ripple=Modulation(log_std=0.176, correlation_s=146.6),
        bin_variance=0.021,
        silence=None,
        length_correlation=0.07,
        prompt_quantiles=(
            2, 17, 29, 91, 161, 181, 200, 207, 235, 372, 379, 387, 393, 396, 400, 403, 407, 414, 428, 703,
            922, 984, 1005, 1020, 1034, 1045, 1058, 1071, 1083, 1097, 1112, 1130, 1153, 1189, 1277, 1315,
            1434, 1876, 2309, 2734, 4075, 4083, 4090, 4098, 4142, 4831, 5404, 6179, 6570, 14050,
        ),
        output_quantiles=(
            7, 14, 16, 24, 32, 41, 48, 54, 60, 67, 72, 77, 82, 85, 88, 91, 93, 96, 99, 103, 108, 113, 120,
            129, 139, 151, 162, 177, 195, 217, 373, 384, 391, 395, 396, 400, 406, 411, 416, 424, 430, 451,
            509, 540, 601, 643, 719, 954, 1000, 1000,
        ),
    ),
    "code": ServiceFit(
        default_rate_rps=4.0,
        hourly_rate=(
            0.705, 0.678, 0.637, 0.518, 0.412, 0.341, 0.293, 0.246, 0.229, 0.235, 0.251, 0.366, 0.684, 1.177,
            1.674, 1.835, 1.736, 1.979, 2.189, 2.237, 2.106, 1.53, 1.113, 0.829,
        ),
        weekend_rate=(
            0.435, 0.422, 0.376, 0.364, 0.313, 0.249, 0.199, 0.136, 0.105, 0.093, 0.087, 0.117, 0.186,
            0.253, 0.314, 0.362, 0.39, 0.423, 0.467, 0.481, 0.478, 0.484, 0.473, 0.442,
        ),
        swell=Modulation(log_std=0.118, correlation_s=30600.0),
        slow=Modulation(log_std=0.228, correlation_s=900.0),
        ripple=Modulation(log_std=0.611, correlation_s=2.7),
        bin_variance=0.11,
        silence=Silence(busy_mean_s=9.2, idle_min_s=2.0, idle_short_s=1.4, idle_long_s=44.0),
        length_correlation=-0.02,
        prompt_quantiles=(
            3, 12, 17, 35, 50, 75, 102, 147, 185, 232, 299, 386, 484, 578, 679, 770, 863, 939, 1016, 1075,
            1153, 1261, 1370, 1469, 1585, 1690, 1798, 1909, 2048, 2164, 2305, 2433, 2578, 2744, 2942, 3192,
            3538, 3920, 4434, 5188, 6097, 7303, 7435, 7436, 7436, 7436, 7436, 7437, 7437, 7437,
        ),
        output_quantiles=(
            6, 6, 6, 6, 6, 6, 6, 7, 7, 7, 8, 8, 9, 9, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 16,
            16, 18, 19, 20, 22, 24, 26, 29, 33, 39, 46, 55, 69, 90, 128, 171, 251, 359, 599, 825, 885, 1899,
        ),
    ),
}
# fmt: on
